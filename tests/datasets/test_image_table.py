import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest
from kedro.io import DatasetError
from PIL import Image
from pyarrow import parquet

from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_store import PackingStore
from supcon_pipeline.core.messages import InputError
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


def test_categories_are_those_of_their_column(folder: Path) -> None:
    names = {"path": ["a.png", "b.png", "c.png"], "label": ["cup", "cup", "cat"]}
    plain = write(folder / "plain.csv", **names)
    assert ImageTableDataset(str(plain)).load().categories is None
    path = write(folder / "images.csv", **names, kind=["thing", " thing", None])
    raw = ImageTableDataset(str(path), category_column="kind").load()
    assert raw.categories == ["thing", "thing", ""]


@pytest.mark.parametrize("column", ["group", "category"])
def test_an_optional_column_that_is_there_twice_is_refused(folder: Path, column: str) -> None:
    path = folder / "images.csv"
    path.write_text(f"path,label,{column},{column}\na.png,cat,x,y\n")
    with pytest.raises(DatasetError, match=f"table must have one column {column}, got 2"):
        ImageTableDataset(str(path)).load()


def test_queries_and_their_gallery_are_test_images_with_groups(folder: Path) -> None:
    path = write(
        folder / "table.csv",
        path=["a.png", "b.png", "c.png"], label=["cat", "dog", "dog"],
        split=["train", "Query", "gallery"], group=["", "shop 1", " shop 1"],
    )  # fmt: skip
    raw = ImageTableDataset(str(path)).load()
    assert raw.splits == ["train", "test", "test"]
    assert raw.roles == ["", "query", "gallery"]
    assert raw.groups == ["", "shop 1", "shop 1"]


@pytest.mark.parametrize(
    ("marks", "found"),
    [
        (["train", "query", "query"], "query"),
        (["train", "train", "gallery"], "gallery"),
        (["query", "gallery", "test"], "gallery and query and test"),
    ],
)
def test_marks_of_queries_that_would_not_count_are_refused(
    folder: Path, marks: list[object], found: str
) -> None:
    path = write(folder / "t.csv", path=["a.png", "b.png", "c.png"], label=["x", "y", "y"], split=marks)
    with pytest.raises(DatasetError, match=f"split must be query or gallery .* got only {found}; mark all"):
        ImageTableDataset(str(path)).load()


@pytest.mark.parametrize("kind", ["split", "group", "category"])
def test_an_optional_column_that_is_named_must_be_there(folder: Path, kind: str) -> None:
    path = write(folder / "t.csv", path=["a.png", "b.png"], label=["x", "y"])
    name = f"{kind}_column"
    with pytest.raises(DatasetError, match=f"a column fold, got path, label; set {name} .* to null for none"):
        ImageTableDataset(str(path), **{name: "fold"}).load()
    assert len(ImageTableDataset(str(path), **{name: None}).load().ids) == 2


@pytest.mark.parametrize("kind", ["split", "group", "category"])
def test_an_optional_column_is_not_lost_for_its_capitals(folder: Path, kind: str) -> None:
    columns = {"path": ["a.png", "b.png"], "label": ["x", "y"], kind.title(): ["train", "train"]}
    path = write(folder / "t.csv", **columns)
    with pytest.raises(DatasetError, match=f"have a column {kind}, got path, label, {kind.title()}; set"):
        ImageTableDataset(str(path)).load()
    raw = ImageTableDataset(str(path), **{f"{kind}_column": kind.title()}).load()
    assert ["train", "train"] in (raw.splits, raw.groups, raw.categories)


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
            "split must be one of train, valid, validation, val, test, query, gallery, got dev",
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
        (b"", "table must be CSV, got t.csv without a line"),
        (b'path,label\na.png,"cat\nb.png,dog\n', "got t.csv with line 3: .*; close every quote"),
        (
            b"path,label\na.png,cat,\nb.png,dog,\n",
            "as many fields as the header .*, 2, got 3 in row 1",
        ),
        (b"path,label\na.png,cat,0.9\nb.png,dog,0.8\n", "name every column in the header"),
        (b"path,label,split\na.png,cat,train\nb.png\n", r"columns, 3, got 1 in row 2 \(line 3\)"),
        (b"path,label,label\na.png,cat,dog\n", "table must have one column label, got 2 in t.csv; rename"),
        (b"path;kind\na.png;cat\n", "table must have a column label, got path, kind; set label_column"),
        (b"path,label\na.png,cat\n ,dog\n", "path must be given in every row of t.csv, .*: row 2;"),
        (
            b"path,label\na,b\na,b,c,d\n",
            r"columns, 2, got 4 in row 2 \(line 3\); name every column",
        ),
    ],
)
def test_a_file_that_is_no_csv_is_one_line(folder: Path, content: bytes, message: str) -> None:
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(DatasetError) as error:
        ImageTableDataset(str(folder / "t.csv")).load()
    with pytest.raises(InputError, match=message):
        raise error.value.__cause__ or error.value


CATS = "path,label\na.png,cat\nb.png,dog\n"


@pytest.mark.parametrize(
    "content",
    [
        *(CATS.replace(",", mark).encode() for mark in ";\t|"),
        b"sep=;\r\n" + CATS.replace(",", ";").encode(),
        b'"sep=\t"\n' + CATS.replace(",", "\t").encode(),
        *(CATS.encode(name) for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        CATS.replace("\n", "\r\n").encode(),
        CATS.replace("\n", "\r").encode(),
        ("\n" + CATS.replace("\n", "\n\n") + " \n,\n").encode(),
        b"path, label\n a.png , cat\nb.png, dog \n",
        b' "path" , "label"\n "a.png", "cat"\nb.png,dog\n'.replace(b'" ,', b'",'),
        b"score;label;path\n0,9;cat;a.png\n0,8;dog;b.png\n",
        b'label,path,words\ncat,a.png,"of two\nlines, ""quoted"""\ndog,b.png,\n',
    ],
)
def test_a_csv_is_read_whatever_separates_it(folder: Path, content: bytes) -> None:
    (folder / "t.csv").write_bytes(content)
    raw = ImageTableDataset(str(folder / "t.csv")).load()
    assert list(raw.ids) == ["a.png", "b.png"]
    assert [raw.class_names[label] for label in raw.labels] == ["cat", "dog"]
    assert all(image.is_file() for image in raw.images)


def test_a_path_of_windows_is_found_and_a_name_with_a_backslash_too(folder: Path) -> None:
    (folder / "cat").mkdir()
    for name in ("cat/d.png", "odd\\name.png"):
        Image.new("RGB", (2, 2)).save(folder / name)
    path = write(folder / "t.csv", path=["cat\\d.png", "odd\\name.png"], label=["cat", "dog"])
    raw = ImageTableDataset(str(path)).load()
    assert list(raw.ids) == ["cat/d.png", "odd\\name.png"]
    assert all(image.is_file() for image in raw.images)


def test_labels_keep_their_text(folder: Path) -> None:
    words = ["01", "1", "NA", "null", "None", "True", "1.0", "a|b", "[unclear]", "(2)"]
    names = [f"{index}.png" for index in range(len(words))]
    path = write(folder / "t.csv", path=names, label=words)
    raw = ImageTableDataset(str(path)).load()
    assert [raw.class_names[label] for label in raw.labels] == words


@pytest.mark.parametrize(
    ("ending", "labels", "shown"),
    [
        ("parquet", [[0], [0, 1], [1]], r"\[0\] in row 1; keep one label per image"),
        ("parquet", [b"cat", b"dog", b"cat"], "b'cat' in row 1"),
        ("csv", ["cat", "[0, 1]", "dog"], r"'\[0, 1\]' in row 2"),
        ("csv", ["cat", "dog", "['cat', 'dog']"], ".* in row 3"),
        ("csv", ["cat", "dog", "[0 1]"], ".* in row 3"),
        ("csv", ["cat", "dog", "[]"], ".* in row 3"),
        ("csv", ["cat", "dog", "(0, 1)"], ".* in row 3"),
        ("csv", ["cat", "dog", "{'cat', 'dog'}"], ".* in row 3"),
        ("csv", ["cat", "dog", "cat|dog"], "'cat|dog' in row 3"),
        ("csv", ["dog, cat", "dog", "cat"], "'dog, cat' in row 1"),
        ("parquet", ["cat", "cat;dog ", "dog"], ".* in row 2"),
    ],
)
def test_several_labels_of_an_image_are_refused(folder: Path, ending: str, labels: list, shown: str) -> None:
    path = write(folder / f"t.{ending}", path=["a.png", "b.png", "c.png"], label=labels)
    with pytest.raises(DatasetError, match=f"label must be one class for each image, .*, got {shown}"):
        ImageTableDataset(str(path)).load()


def test_spaces_around_the_columns_of_parquet_do_not_count(folder: Path) -> None:
    path = write(folder / "t.parquet", **{" path": [" a.png", "b.png "], "label ": ["cat", "dog"]})
    assert list(ImageTableDataset(str(path)).load().ids) == ["a.png", "b.png"]


def test_a_file_that_is_no_parquet_is_one_line(folder: Path) -> None:
    (folder / "t.parquet").write_text("path,label\n")
    with pytest.raises(DatasetError, match=r"table must be Parquet, got t.parquet: "):
        ImageTableDataset(str(folder / "t.parquet")).load()


@pytest.mark.parametrize("damage", ["what is said of columns", "text"])
def test_a_parquet_table_with_a_flipped_bit_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    table, path = pyarrow.table({"path": ["0.png"], "label": ["cat"]}), tmp_path / "t.parquet"
    if damage == "text":
        table = pyarrow.table({"path": ["0.png"], "label": pyarrow.array([b"\xb0"]).view("string")})
    else:
        told = {"index_columns": [], "column_indexes": [], "columns": [{"name": "path", "pandas_uype": "a"}]}
        table = table.replace_schema_metadata({"pandas": json.dumps(told)})
    parquet.write_table(table, path)
    with pytest.raises(DatasetError, match=r"table must be Parquet, got t.parquet: "):
        ImageTableDataset(str(path)).load()


def test_a_path_with_a_zero_byte_is_rejected_with_its_reason(folder: Path) -> None:
    (folder / "t.csv").write_bytes(b"path,label\na.png,cat\nb\0.png,dog\n")
    raw = ImageTableDataset(str(folder / "t.csv")).load()
    packed, rejected = PackingStore(folder / "packings").pack(raw.images, Packing(4, 3, "pad"), 0)
    assert (len(packed), rejected) == (1, [(1, "embedded null byte")])
