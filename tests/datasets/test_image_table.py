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
        (
            "t.csv",
            {"path": ["a.png"], "kind": ["cat"]},
            "table must have a column label, got path, kind; set",
        ),
        (
            "t.csv",
            {"path": ["a.png", "b.png", "c.png"], "label": ["cat", None, None]},
            "label must be given in every row of t.csv, got none in 2: row 2, 3; fill",
        ),
        (
            "t.parquet",
            {"path": ["a.png", "b.png"], "label": [1.0, np.nan]},
            "label must be given in every row of t.parquet, got none in 1: row 2; fill",
        ),
        (
            "t.csv",
            {"path": ["a.png"], "label": ["cat"], "split": ["dev"]},
            "split must be one of train, valid, validation, val, test, got dev",
        ),
        (
            "t.csv",
            {"path": ["a.png", "a.png"], "label": ["cat", "dog"]},
            "ids must be unique, got 1 repeated, the first is a.png of image 2, which image 1 has;",
        ),
        (
            "t.csv",
            {"path": list("abcdef"), "label": ["cat", "nan", "NaN", " ", "NAN", "dog"]},
            "got none in 4: row 2, 3, 4, and others; fill",
        ),
        ("t.parquet", {"path": ["a", "b"], "label": ["cat", ""]}, "got none in 1: row 2; fill"),
        ("t.parquet", {"path": [" ", "b"], "label": ["cat", "dog"]}, "path must be given in .*: row 1; fill"),
        ("t.csv", {"path": [], "label": []}, "table must have rows, got none in t.csv"),
        ("t.txt", {"path": ["a.png"], "label": ["cat"]}, "table must be a .csv or .parquet file, got t.txt"),
        (None, {}, "table must be a file, got .*gone.csv, which does not exist"),
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


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_words_that_look_alike_are_one(folder: Path, ending: str) -> None:
    path = write(
        folder / f"table.{ending}",
        path=["a.png", "b.png", "c.png"], label=["caf\u00e9", " cafe\u0301", "dog "],
        split=["train ", "Train", " test"],
    )  # fmt: skip
    raw = ImageTableDataset(str(path)).load()
    assert (raw.class_names, raw.labels.tolist()) == (["caf\u00e9", "dog"], [0, 0, 1])
    assert raw.splits == ["train", "train", "test"]


def test_a_csv_of_a_spreadsheet_with_a_mark_at_its_start_is_read(folder: Path) -> None:
    (folder / "t.csv").write_text("path,label\na.png,cat\nb.png,dog\n", "utf-8-sig")
    assert ImageTableDataset(str(folder / "t.csv")).load().class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "path,label\na.png,gr\u00fcn\n".encode("latin-1"),
            "must be in UTF-8, got t.csv with another byte at 20;",
        ),
        (b"", "table must be CSV, got t.csv: No columns"),
        (b"path,label\na,b\na,b,c,d\n", "table must be CSV, got t.csv: .*line 3"),
    ],
)
def test_a_file_that_is_no_csv_is_one_line(folder: Path, content: bytes, message: str) -> None:
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(DatasetError) as error:
        ImageTableDataset(str(folder / "t.csv")).load()
    assert isinstance(error.value.__cause__, ValueError)
    with pytest.raises(ValueError, match=message):
        raise error.value.__cause__
