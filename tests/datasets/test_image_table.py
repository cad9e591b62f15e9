from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError
from PIL import Image

from supcon_pipeline.datasets.image_table import ImageTableDataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    return tmp_path


def write(target: Path, /, **columns: list[object]) -> Path:
    table = pd.DataFrame(columns)
    table.to_parquet(target) if target.suffix == ".parquet" else table.to_csv(target, index=False)
    return target


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_row_is_an_image_with_its_label_and_split(folder: Path, ending: str) -> None:
    path = write(
        folder / f"table.{ending}",
        path=["b.png", "a.png", "c.png"], label=["dog", "cat", "dog"], split=["train", "val", "Test"],
    )  # fmt: skip
    raw = ImageTableDataset(str(path)).load()
    assert list(raw.ids) == ["b.png", "a.png", "c.png"]
    assert [image.is_file() for image in raw.images] == [True] * 3
    assert (raw.class_names, raw.labels.tolist()) == (["cat", "dog"], [1, 0, 1])
    assert raw.splits == ["train", "validation", "test"]


def test_columns_and_folder_have_the_names_of_the_catalog(folder: Path) -> None:
    (folder / "tables").mkdir()
    path = write(folder / "tables/t.csv", file=["a.png", "b.png"], kind=["01", "NA"])
    raw = ImageTableDataset(str(path), str(folder), path_column="file", label_column="kind").load()
    assert raw.class_names == ["01", "NA"]
    assert raw.splits is None
    assert all(image.is_file() for image in raw.images)


def test_a_relative_folder_is_that_beside_the_table_from_wherever_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tables").mkdir()
    path = write(folder / "tables/t.csv", path=["a.png", "b.png"], label=["cat", "dog"])
    monkeypatch.chdir(folder / "tables")
    raw = ImageTableDataset(str(path), "..").load()
    assert all(image.is_file() for image in raw.images)


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("t.csv", {"path": ["a.png"], "kind": ["cat"]}, "table must have a column label, got path, kind;"),
        (
            "t.csv",
            {"path": ["a.png", "b.png", "c.png"], "label": ["cat", None, None]},
            "label must be given in every row of t.csv, got none in 2, the first is row 2;",
        ),
        (
            "t.parquet",
            {"path": ["a.png", "b.png"], "label": [1.0, np.nan]},
            "label must be given in every row of t.parquet, got none in 1, the first is row 2;",
        ),
        (
            "t.csv",
            {"path": ["a.png"], "label": ["cat"], "split": ["dev"]},
            "split must be one of train, valid, validation, val, test, got dev",
        ),
        (
            "t.csv",
            {"path": ["a.png", "a.png"], "label": ["cat", "dog"]},
            "ids must be unique, got 1 repeated",
        ),
        ("t.txt", {"path": ["a.png"], "label": ["cat"]}, "table must be a .csv or .parquet file, got t.txt"),
        (None, {}, "table must be a file, got .*gone.csv, which is not there"),
    ],
)
def test_a_table_that_cannot_be_is_refused(
    folder: Path, name: str | None, columns: dict, message: str
) -> None:
    path = write(folder / name, **columns) if name else folder / "gone.csv"
    with pytest.raises(DatasetError) as error:
        ImageTableDataset(str(path)).load()
    with pytest.raises(ValueError, match=message):
        raise error.value.__cause__ or error.value
