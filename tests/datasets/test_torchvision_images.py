from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from supcon_pipeline.core.packing import Packing, pack_stream
from supcon_pipeline.datasets.torchvision_images import NAMES, TorchvisionImagesDataset, read_image


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


def write_image(path: Path, color: int, mode: str = "RGB", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), (color,) * 3 if mode == "RGB" else color).save(path, **options)


def write_dtd(root: Path) -> list[Path]:
    """Two textures, with an image of each in each split; of the train images one is broken, one sideways."""
    folder, files = root / "dtd/dtd", []
    sideways = Image.Exif()
    sideways[0x0112] = 6
    for split in ("train", "val", "test"):
        names = [f"{name}/{name}_{split}.jpg" for name in ("banded", "dotted")]
        files += [folder / "images" / name for name in names]
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        (folder / f"labels/{split}1.txt").write_text("".join(f"{name}\n" for name in names))
    for index, file in enumerate(files):
        write_image(file, 40 * index, exif=sideways)
    files[0].write_text("no image")
    return files


def test_a_set_of_files_gives_files_and_none_is_decoded_when_it_is_loaded(tmp_path: Path) -> None:
    files = write_dtd(tmp_path)
    raw = TorchvisionImagesDataset("DTD", str(tmp_path)).load()
    assert list(raw.images) == files
    assert raw.splits == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert raw.labels.tolist() == [0, 1] * 3
    packed = list(pack_stream(raw.images, Packing(8, 3, "pad"), 0))
    assert "file must be an image" in str(packed[0])
    assert [int(image[4, 4, 0]) for image in packed[1:]] == pytest.approx([40, 80, 120, 160, 200], abs=2)


def write_pets(root: Path) -> list[Path]:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for split, name in (("trainval", "Beagle_1"), ("test", "Beagle_2")):
        (folder / f"annotations/{split}.txt").write_text(f"{name} 1 2 1\n")
        write_image(folder / f"images/{name}.jpg", 9)
    return [folder / "images/Beagle_1.jpg", folder / "images/Beagle_2.jpg"]


def write_country211(root: Path) -> list[Path]:
    files = [root / f"country211/{split}/AD/a.jpg" for split in ("train", "valid", "test")]
    for file in files:
        write_image(file, 9)
    return files


def write_gtsrb(root: Path) -> list[Path]:
    folder = root / "gtsrb"
    train, test = folder / "GTSRB/Training/00000/a.ppm", folder / "GTSRB/Final_Test/Images/b.ppm"
    for file in (train, test):
        write_image(file, 9)
    (folder / "GT-final_test.csv").write_text("Filename;ClassId\nb.ppm;0\n")
    return [train, test]


@pytest.mark.parametrize(
    ("name", "write"),
    [("OxfordIIITPet", write_pets), ("Country211", write_country211), ("GTSRB", write_gtsrb)],
)
def test_every_way_of_keeping_files_is_known_and_the_files_can_be_packed(tmp_path: Path, name, write) -> None:
    files = write(tmp_path)
    raw = TorchvisionImagesDataset(name, str(tmp_path)).load()
    assert list(raw.images) == files
    assert all(
        not isinstance(image, str) and image[4, 4].tolist() == pytest.approx([9] * 3, abs=1)
        for image in pack_stream(raw.images, Packing(8, 3, "pad"), 0)
    )


def test_a_transform_of_the_options_is_not_passed_over_for_the_files(tmp_path: Path) -> None:
    write_country211(tmp_path)
    options = {"transform": lambda image: image.resize((7, 7))}
    raw = TorchvisionImagesDataset("Country211", str(tmp_path), options).load()
    assert raw.images[0].shape == (7, 7, 3)


@pytest.mark.parametrize(
    ("mode", "expected"), [("L", 5), ("1", [255] * 3), ("RGB", [5] * 3), ("RGBA", [5] * 3)]
)
def test_images_of_a_set_are_grey_or_in_colour(mode: str, expected: object) -> None:
    image = Image.new("RGB", (2, 1), (5, 5, 5)).convert(mode, dither=Image.Dither.NONE)
    if mode == "1":
        image.putpixel((0, 0), 1)
    assert read_image((image, 0))[0, 0].tolist() == expected
