from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from supcon_pipeline.datasets.torchvision_images import NAMES, SetItems, TorchvisionImagesDataset


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST: two zeros, the type, the number of axes, their sizes, the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


@pytest.fixture
def fashion(tmp_path: Path):
    """Files of Fashion-MNIST with six images for training and four for testing."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 28, 28), dtype=np.uint8)
    labels = np.arange(10)
    folder = tmp_path / "FashionMNIST/raw"
    for name, part in (("train", slice(0, 6)), ("t10k", slice(6, 10))):
        write_idx(folder / f"{name}-images-idx3-ubyte", images[part])
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels[part])
    return tmp_path, images


def test_images_labels_names_and_official_splits_are_those_of_the_files(fashion) -> None:
    root, images = fashion
    raw = TorchvisionImagesDataset("FashionMNIST", str(root)).load()
    assert np.array_equal(np.stack(list(raw.images)), images)
    assert raw.labels.tolist() == list(range(10))
    assert raw.class_names[0] == "T-shirt/top"
    assert raw.splits == ["train"] * 6 + ["test"] * 4
    assert raw.ids[:2] == ["train/000000", "train/000001"]
    assert raw.ids[-1] == "test/000003"


def test_options_go_to_the_class_of_torchvision(fashion) -> None:
    root, _ = fashion
    options = {"transform": lambda image: image.resize((7, 7))}
    assert TorchvisionImagesDataset("FashionMNIST", str(root), options).load().images[0].shape == (7, 7)


def test_without_network_and_files_the_error_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(DatasetError) as error:
        TorchvisionImagesDataset("CIFAR10", str(tmp_path / "files")).load()
    message = str(error.value.__cause__)
    assert f"CIFAR10 must be in {tmp_path / 'files'} or be downloadable, got" in message
    assert "no network" in message
    assert "put cifar-10-python.tar.gz there" in message


def test_a_set_that_there_is_not_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"must be one of CIFAR10, CIFAR100, .*got 'CIFAR11'"):
        TorchvisionImagesDataset("CIFAR11", "data").load()


def test_every_name_is_a_set_of_torchvision() -> None:
    import torchvision

    assert all(hasattr(torchvision.datasets, name) for name in NAMES)


def test_images_of_several_parts_follow_one_another_in_grey_or_colour() -> None:
    parts = [[(Image.new("L", (1, 1), 1), 0)], [(Image.new("RGB", (1, 1), (2, 2, 2)), 0)] * 2]
    items = SetItems(parts)
    assert [items[index].ravel().tolist() for index in range(3)] == [[1], [2, 2, 2], [2, 2, 2]]
    assert [item.ndim for item in items[0:2]] == [2, 3]
    with pytest.raises(IndexError):
        items[3]
