import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_pool import pack_stream
from supcon_pipeline.datasets.arrow_images import ArrowImagesDataset

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def make_part(pixels: list[np.ndarray], labels: list[Any], label: Any) -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": label})
    return datasets.Dataset.from_dict({"image": pixels, "label": labels}, features=features)


@pytest.fixture
def pixels() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))


def load(folder: Path, part: Any) -> Any:
    part.save_to_disk(str(folder / "set"))
    return ArrowImagesDataset(str(folder / "set")).load()


def test_splits_labels_and_images_are_those_that_were_saved(tmp_path: Path, pixels) -> None:
    label = datasets.ClassLabel(names=["dog", "cat"])
    parts = {"train": make_part(pixels[:3], [0, 1, 0], label), "test": make_part(pixels[3:], [1], label)}
    raw = load(tmp_path, datasets.DatasetDict(parts))
    assert raw.splits == ["train", "train", "train", "test"]
    assert [raw.class_names[index] for index in raw.labels] == ["dog", "cat", "dog", "cat"]
    assert all(isinstance(item, bytes) for item in raw.images)
    assert np.array_equal(np.stack(list(pack_stream(raw.images, Packing(8, 3, "pad"), 0))), np.stack(pixels))


def test_a_set_without_splits_is_split_later_and_its_labels_may_be_words(tmp_path: Path, pixels) -> None:
    raw = load(tmp_path, make_part(pixels, ["b", "a", "b", "a"], datasets.Value("string")))
    assert raw.splits is None
    assert (raw.class_names, raw.labels.tolist()) == (["a", "b"], [1, 0, 1, 0])


def test_images_that_are_only_named_are_read_from_their_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2), "red").save(path)
    part = make_part([str(path)] * 2, ["a", "b"], datasets.Value("string"))
    part = part.cast_column("image", datasets.Image(decode=False))
    part.save_to_disk(str(tmp_path / "set"))
    (first, _) = pack_stream(ArrowImagesDataset(str(tmp_path / "set")).load().images, Packing(8, 3, "pad"), 0)
    assert first[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (["a", " ", "b", "NaN"], "string", "label must be given for every image, got none for 2: row 2, 4;"),
        (["a", None, "b", "a"], "string", "label must be given for every image, got none for 1: row 2;"),
        ([1.0, float("nan"), 2.0, 1.0], "float64", "for every image, got none for 1: row 2;"),
    ],
)
def test_an_image_without_a_label_is_refused(tmp_path: Path, pixels, labels, kind: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, make_part(pixels, labels, datasets.Value(kind)))


@pytest.mark.parametrize("label", [-2, 2])
def test_a_label_that_is_no_class_is_refused_and_not_counted_from_the_end(
    tmp_path: Path, pixels, label: int
) -> None:
    part = make_part(pixels, [0, 1, label, 1], datasets.Value("int64"))
    part.save_to_disk(str(tmp_path / "set"))
    told = json.loads((tmp_path / "set/dataset_info.json").read_text())
    told["features"]["label"] = {"names": ["dog", "cat"], "_type": "ClassLabel"}
    (tmp_path / "set/dataset_info.json").write_text(json.dumps(told))
    with pytest.raises(
        DatasetError, match=f"label must be a number of its 2 classes, .* got {label} in row 3;"
    ):
        ArrowImagesDataset(str(tmp_path / "set")).load()


def test_words_that_look_alike_are_one(tmp_path: Path, pixels) -> None:
    raw = load(tmp_path, make_part(pixels, ["caf\u00e9", " cafe\u0301", "b", "b "], datasets.Value("string")))
    assert (raw.class_names, raw.labels.tolist()) == (["b", "caf\u00e9"], [1, 1, 0, 0])


def test_a_split_or_a_column_or_a_folder_that_there_is_not_is_refused(tmp_path: Path, pixels) -> None:
    part = make_part(pixels, ["a", "b", "a", "b"], datasets.Value("string"))
    with pytest.raises(DatasetError, match=r"splits must be train, valid, .*got dev"):
        load(tmp_path, datasets.DatasetDict({"dev": part}))
    part.save_to_disk(str(tmp_path / "other"))
    with pytest.raises(
        DatasetError, match="columns must hold kind, got image, label; set label_column of its entry"
    ):
        ArrowImagesDataset(str(tmp_path / "other"), label_column="kind").load()
    with pytest.raises(DatasetError, match=r"path must be a folder written by .*save_to_disk, got gone"):
        ArrowImagesDataset("gone").load()


@pytest.mark.parametrize("is_named", [True, False])
def test_several_labels_of_an_image_are_refused(tmp_path: Path, pixels, is_named: bool) -> None:
    kind = datasets.ClassLabel(names=["cat", "dog"]) if is_named else datasets.Value("int64")
    part = make_part(pixels, [[0], [1], [0, 1], [0]], datasets.List(kind))
    with pytest.raises(DatasetError, match=r"label must be one class for each .*, got \[0\] in row 1;"):
        load(tmp_path, part)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1, 2]}, r"image must hold images, or paths .*, got Value\('int64'\); set image_column"),
        ({"image": [["a.png"], ["b.png"]]}, r"got List\(Value\('string'\)\); set image_column of its entry"),
        ({"image": []}, r"got .*set \(a set or split without rows\); write it again"),
    ],
)
def test_a_set_without_images_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    labels = ["a", "b"][: len(columns["image"])]
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, datasets.Dataset.from_dict({**columns, "label": labels}))


def test_a_folder_of_a_hub_is_refused_with_what_makes_it_one_that_is_read(tmp_path: Path, pixels) -> None:
    source = make_part(pixels, ["a", "b", "a", "b"], datasets.Value("string"))
    (tmp_path / "hub").mkdir()
    source.to_parquet(tmp_path / "hub/train-00000.parquet")
    with pytest.raises(DatasetError, match=r"by datasets\.save_to_disk, got .*hub \(.*\); write") as caught:
        ArrowImagesDataset(str(tmp_path / "hub")).load()
    assert f"datasets.load_dataset('{tmp_path / 'hub'}').save_to_disk(<folder>)" in str(caught.value)
    loaded = datasets.load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"))
    loaded.save_to_disk(str(tmp_path / "saved"))
    assert len(ArrowImagesDataset(str(tmp_path / "saved")).load().ids) == 4


def test_a_row_of_neither_content_nor_path_is_an_empty_file(tmp_path: Path) -> None:
    part = datasets.Dataset.from_dict({"image": [{"kind": 1}, {"kind": 2}], "label": ["a", "b"]})
    assert list(load(tmp_path, part).images) == [b"", b""]
