import inspect
import re
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import yaml
from kedro.io import AbstractDataset, DatasetError
from PIL import Image

from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_pool import pack_stream
from supcon_pipeline.datasets.torchvision_images import TorchvisionImagesDataset, read_image
from supcon_pipeline.datasets.torchvision_sets import SETS


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


def test_without_network_and_files_the_error_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(DatasetError) as error:
        TorchvisionImagesDataset("CIFAR10", str(tmp_path / "files")).load()
    message = str(error.value.__cause__)
    assert f"CIFAR10 must be in {tmp_path / 'files'} or downloadable, got" in message
    assert "no network" in message
    assert message.endswith("put there: cifar-10-python.tar.gz")


def test_a_set_that_there_is_not_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"dataset of torchvision, got 'CIFAR11'; did you mean 'CIFAR10"):
        TorchvisionImagesDataset("CIFAR11", "data").load()


@pytest.mark.parametrize("name", SETS)
def test_the_splits_options_and_files_of_a_set_are_those_of_its_class(name: str) -> None:
    import torchvision

    kind, known = getattr(torchvision.datasets, name), SETS[name]
    accepted = {word for base in kind.__mro__[:2] for word in inspect.signature(base.__init__).parameters}
    assert {word for arguments in known.splits.values() for word in arguments} | set(
        known.options
    ) <= accepted
    source = inspect.getsource(inspect.getmodule(kind))
    files = re.findall(r"[\w./-]+\.(?:tar\.gz|tgz|zip|tar|gz|mat|bz2|data)\b", known.files)
    assert files
    assert all(file.split("/")[-1] in source for file in files)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CIFAR10", {"train": True}, "options of CIFAR10 must be none, got train"),
        ("DTD", {"split": "val"}, "options of DTD must be partition, got split"),
        (
            "Flowers102",
            {"transform": None, "root": "x"},
            "options of Flowers102 must be none, got transform, root",
        ),
        ("STL10", {"folds": 11}, r"options of STL10 must fit it, got \{'folds': 11\}: .*11"),
        ("EMNIST", {"split": "letter"}, "options of EMNIST must fit it, .*'letter'"),
        ("EMNIST", {}, "options of EMNIST must fit it, .*split"),
    ],
)
def test_options_that_choose_no_set_are_refused(tmp_path: Path, name, options, message) -> None:
    with pytest.raises(DatasetError) as error:
        TorchvisionImagesDataset(name, str(tmp_path), options).load()
    with pytest.raises(ValueError, match=message):
        raise error.value.__cause__ or error.value


def test_an_option_of_yaml_chooses_the_set(tmp_path: Path) -> None:
    write_dtd(tmp_path)
    labels = tmp_path / "dtd/dtd/labels"
    for split, kinds in (("train", "dotted"), ("val", "banded"), ("test", "banded")):
        (labels / f"{split}2.txt").write_text(f"{kinds}/{kinds}_{split}.jpg\n")
    text = f"""
type: supcon_pipeline.datasets.torchvision_images.TorchvisionImagesDataset
name: DTD
filepath: {tmp_path}
options: {{partition: 2}}
"""
    raw = AbstractDataset.from_config("raw_images", yaml.safe_load(text)).load()
    assert [Path(image).name for image in raw.images] == [
        "dotted_train.jpg",
        "banded_val.jpg",
        "banded_test.jpg",
    ]


def test_emnist_is_the_set_of_its_option_without_the_class_that_has_no_image(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for split, labels in (("train", [1, 2, 26, 26]), ("test", [2, 1, 1, 26])):
        folder = tmp_path / "EMNIST/raw"
        write_idx(folder / f"emnist-letters-{split}-images-idx3-ubyte", images)
        write_idx(folder / f"emnist-letters-{split}-labels-idx1-ubyte", np.array(labels))
    raw = TorchvisionImagesDataset("EMNIST", str(tmp_path), {"split": "letters"}).load()
    assert raw.class_names == ["a", "b", "z"]
    assert raw.labels.tolist() == [0, 1, 2, 2, 1, 0, 0, 2]
    assert raw.splits == ["train"] * 4 + ["test"] * 4


def test_of_the_labels_of_qmnist_the_class_is_taken(tmp_path: Path) -> None:
    folder, images = tmp_path / "QMNIST/raw", np.zeros((3, 28, 28), np.uint8)
    labels = np.array([[5, 1, 9], [0, 2, 9], [3, 3, 9]], dtype=">i4")
    sizes = b"".join(size.to_bytes(4, "big") for size in labels.shape)
    for split in ("train", "test"):
        write_idx(folder / f"qmnist-{split}-images-idx3-ubyte", images)
        (folder / f"qmnist-{split}-labels-idx2-int").write_bytes(
            bytes([0, 0, 12, 2]) + sizes + labels.tobytes()
        )
    raw = TorchvisionImagesDataset("QMNIST", str(tmp_path)).load()
    assert raw.class_names == ["0 - zero", "3 - three", "5 - five"]
    assert raw.labels.tolist() == [2, 0, 1] * 2


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


def write_eurosat(root: Path) -> list[Path]:
    files = [root / f"eurosat/2750/{name}/{name}_1.jpg" for name in ("Forest", "River")]
    for file in files:
        write_image(file, 9)
    return files


def write_caltech(root: Path, folder: str, names: tuple[str, ...]) -> list[Path]:
    files = [root / folder / name for name in names]
    for file in files:
        write_image(file, 9)
    return files


def write_caltech101(root: Path) -> list[Path]:
    names = ("ant/image_0001.jpg", "ant/image_0002.jpg", "bass/image_0001.jpg")
    files = write_caltech(root, "caltech101/101_ObjectCategories", names)
    write_image(root / "caltech101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg", 9)
    return files


def write_caltech256(root: Path) -> list[Path]:
    names = ("001.ak47/001_0001.jpg", "002.flag/002_0001.jpg", "002.flag/002_0002.jpg")
    return write_caltech(root, "caltech256/256_ObjectCategories", names)


@pytest.mark.parametrize(
    ("name", "write", "classes"),
    [
        ("EuroSAT", write_eurosat, ["Forest", "River"]),
        ("Caltech101", write_caltech101, ["ant", "bass"]),
        ("Caltech256", write_caltech256, ["001.ak47", "002.flag"]),
    ],
)
def test_a_set_without_splits_is_left_to_the_seed(tmp_path: Path, name, write, classes) -> None:
    files = write(tmp_path)
    raw = TorchvisionImagesDataset(name, str(tmp_path)).load()
    assert list(raw.images) == files
    assert raw.splits is None
    assert raw.class_names == classes
    assert [classes[label] for label in raw.labels] == [file.parent.name for file in files]
    assert raw.ids[0] == "image/000000"


@pytest.mark.parametrize(
    ("mode", "expected"), [("L", 5), ("1", [255] * 3), ("RGB", [5] * 3), ("RGBA", [5] * 3)]
)
def test_images_of_a_set_are_grey_or_in_colour(mode: str, expected: object) -> None:
    image = Image.new("RGB", (2, 1), (5, 5, 5)).convert(mode, dither=Image.Dither.NONE)
    if mode == "1":
        image.putpixel((0, 0), 1)
    assert read_image((image, 0))[0, 0].tolist() == expected
