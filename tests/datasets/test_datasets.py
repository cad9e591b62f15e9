import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from kedro.io import DataCatalog, DatasetError, Version
from matplotlib.figure import Figure
from safetensors.torch import save_file

from supcon_pipeline.core.checksums import checksum_path
from supcon_pipeline.core.data.encoded_images import EncodedImages
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_store import PackingStore
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.search.index import build_index, search_index
from supcon_pipeline.datasets.digits import DigitsDataset
from supcon_pipeline.datasets.faiss_index import FaissIndexDataset
from supcon_pipeline.datasets.figure import FigureDataset
from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset
from supcon_pipeline.datasets.packed_images import PackedImagesDataset
from supcon_pipeline.datasets.packing import PackingDataset
from supcon_pipeline.datasets.progress import ProgressDataset
from supcon_pipeline.datasets.tensorboard import TensorBoardDataset
from supcon_pipeline.datasets.torchvision_images import TorchvisionImagesDataset
from tests.conftest import ROOT

VERSION = Version(None, "1")


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    raw, digits = DigitsDataset().load(), load_digits()
    assert len(raw.images) == len(set(raw.ids)) == 1797
    assert np.array_equal(raw.labels, digits.target)
    assert all(image.dtype == np.uint8 and image.shape == (8, 8) for image in raw.images)
    assert np.allclose(np.stack(raw.images) * (16 / 255), digits.images, atol=0.04)


def test_packed_images_are_memory_mapped_and_equal(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    dataset = PackedImagesDataset(str(tmp_path / "images.npy"), VERSION)
    dataset.save(images)
    loaded = dataset.load()
    assert isinstance(loaded, np.memmap)
    assert np.array_equal(loaded, images)


def test_images_that_are_not_packed_are_refused(tmp_path: Path) -> None:
    dataset = PackedImagesDataset(str(tmp_path / "images.npy"), VERSION)
    with pytest.raises(
        DatasetError, match=r"must be uint8 \[n, height, width, channels\], got float64 \[2, 2\]"
    ):
        dataset.save(np.zeros((2, 2)))
    assert not dataset.exists()


def test_metadata_larger_than_a_header_comes_back(tmp_path: Path) -> None:
    dataset = NamedTensorsDataset(str(tmp_path / "embeddings.safetensors"), VERSION)
    ids = [f"gruen/\u00fc{row:0100}.png" for row in range(1_000_000)]
    dataset.save(NamedTensors({"a": torch.ones(1)}, {"sample_ids": ids}))
    loaded = dataset.load()
    assert loaded.metadata == {"sample_ids": ids}
    assert list(loaded.tensors) == ["a"]


def test_named_tensors_with_metadata_in_the_header_come_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_file({"a": torch.ones(1)}, path, {"metadata": '{"epoch": 1}'})
    loaded = NamedTensorsDataset(str(path)).load()
    assert loaded.metadata == {"epoch": 1}
    assert list(loaded.tensors) == ["a"]


def test_named_tensors_come_back_with_type_layout_free_values_and_metadata(tmp_path: Path) -> None:
    tensors = {
        "weight": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(
            memory_format=torch.channels_last
        ),
        "count": torch.tensor(3),
    }
    dataset = NamedTensorsDataset(str(tmp_path / "state.safetensors"), VERSION)
    dataset.save(NamedTensors(tensors, {"epoch": 1, "metrics": {"a": 0.5}}))
    loaded = dataset.load()
    assert loaded.metadata == {"epoch": 1, "metrics": {"a": 0.5}}
    assert loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())
    assert loaded.tensors["count"].dtype == torch.int64


def test_a_file_of_tensors_is_no_pickle(tmp_path: Path) -> None:
    dataset = NamedTensorsDataset(str(tmp_path / "state.safetensors"), VERSION)
    dataset.save(NamedTensors({"a": torch.ones(1)}))
    content = Path(dataset._get_load_path()).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["a"]["dtype"] == "F32"


@pytest.mark.parametrize("hnsw_above", [0, 50])
def test_an_index_comes_back_and_finds_the_same(tmp_path: Path, hnsw_above: int) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    index = build_index(rows, hnsw_above, num_links=4, ef_construction=20, ef_search=33)
    dataset = FaissIndexDataset(str(tmp_path / "index.faiss"), VERSION)
    assert not dataset.exists()
    dataset.save(index)
    loaded = dataset.load()
    for expected, found in zip(search_index(index, rows, 3), search_index(loaded, rows, 3), strict=True):
        assert np.array_equal(expected, found)
    assert getattr(loaded, "hnsw", None) is None or loaded.hnsw.efSearch == 33


def test_a_figure_comes_back_as_a_png(tmp_path: Path) -> None:
    dataset = FigureDataset(filepath=str(tmp_path / "figure.png"), version=VERSION)
    dataset.save(Figure())
    assert dataset.load().startswith(b"\x89PNG")


def test_tensorboard_writes_below_its_version(tmp_path: Path) -> None:
    with TensorBoardDataset(str(tmp_path / "events"), VERSION).load() as log:
        log.add_scalar("a", 1.0, 0)
    assert list((tmp_path / "events" / "1").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("dataset", [DigitsDataset(), TensorBoardDataset("nowhere")])
def test_what_is_only_read_cannot_be_saved(dataset: DigitsDataset) -> None:
    with pytest.raises(DatasetError, match="must"):
        dataset.save("anything")


@pytest.mark.parametrize("kind", [PackingDataset, ProgressDataset])
def test_an_object_store_is_refused_instead_of_a_local_folder_of_its_name(kind: Any) -> None:
    with pytest.raises(InputError, match=r"must be on this machine .*, got s3://bucket/a; set a local"):
        kind("s3://bucket/a")


def test_a_download_goes_into_no_local_folder_of_the_name_of_an_object_store() -> None:
    with pytest.raises(InputError, match=r"must be on this machine .*, got s3://bucket/cifar;"):
        TorchvisionImagesDataset("CIFAR10", "s3://bucket/cifar")


def test_the_address_of_a_local_file_is_its_path(tmp_path: Path) -> None:
    dataset = NamedTensorsDataset(f"file://{tmp_path}/a.safetensors", VERSION)
    dataset.save(NamedTensors({"a": torch.ones(1)}))
    assert (tmp_path / "a.safetensors/1/a.safetensors").is_file()


def test_class_names_that_look_like_numbers_or_like_nothing_come_back(tmp_path: Path) -> None:
    entry = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text())["confused_pairs"]
    catalog = DataCatalog.from_config({"confused_pairs": {**entry, "filepath": str(tmp_path / "pairs.csv")}})
    pairs = pd.DataFrame(
        {"label": ["007", "NA"], "predicted": ["1e3", ""], "count": [2, 1], "share": [0.5, 1.0]}
    )
    catalog.save("confused_pairs", pairs)
    pd.testing.assert_frame_equal(catalog.load("confused_pairs"), pairs, check_dtype=False)


def test_images_that_were_linked_have_the_checksum_with_which_they_were_packed(tmp_path: Path) -> None:
    packed = PackedImagesDataset(str(tmp_path / "packed.npy"), VERSION)
    packed.save(np.full((2, 4, 4, 3), 7, np.uint8))
    images = packed.load()
    # A bit that flips on the disk in between.
    content = bytearray(Path(images.filename).read_bytes())
    content[-1] ^= 1
    Path(images.filename).write_bytes(content)
    linked = PackedImagesDataset(str(tmp_path / "linked.npy"), VERSION)
    linked.save(images)
    with pytest.raises(InputError, match=r"^linked.npy of run 1 must be as it was saved"):
        linked.load()


def test_encoded_images_come_back_from_the_file_that_was_linked(tmp_path: Path) -> None:
    digits = DigitsDataset().load().images[:5]
    images, _ = PackingStore(tmp_path / "packing").pack(digits, Packing(8, 3, "pad", "encoded"), 0)
    dataset = PackedImagesDataset(str(tmp_path / "images.npy"), VERSION)
    dataset.save(images)
    loaded = dataset.load()
    assert isinstance(loaded, EncodedImages)
    assert np.array_equal(loaded[:], images[:])
    (packed,) = (tmp_path / "packing").glob("*.npy")
    assert packed.samefile(tmp_path / "images.npy/1/images.npy")


def test_encoded_images_that_have_changed_are_refused(tmp_path: Path) -> None:
    digits = DigitsDataset().load().images[:5]
    images, _ = PackingStore(tmp_path / "packing").pack(digits, Packing(8, 3, "pad", "encoded"), 0)
    dataset = PackedImagesDataset(str(tmp_path / "images.npy"), VERSION)
    dataset.save(images)
    path = tmp_path / "images.npy/1/images.npy"
    content = path.read_bytes()
    for changed in (content[:-9], content[:200] + b"?" + content[201:], b""):
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"^images.npy of run 1 must be as it was saved"):
            dataset.load()
    checksum_path(path).unlink()
    for changed in (content[:-9], b""):
        path.write_bytes(changed)
        with pytest.raises(InputError, match="must be a file of its kind, got one that cannot be read"):
            dataset.load()
