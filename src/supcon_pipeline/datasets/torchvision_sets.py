"""The classification datasets of torchvision: their splits, options and files."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Splits = Mapping[str, Mapping[str, Any]]

# The splits of the authors, by our names, with the arguments that select them.
_FLAG: Splits = {"train": {"train": True}, "test": {"train": False}}
_TWO: Splits = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE: Splits = {"train": {"split": "train"}, "validation": {"split": "val"}, "test": {"split": "test"}}
_NONE: Splits = {"": {}}


class TorchvisionSet(NamedTuple):
    """A dataset.

    Args:
        splits: arguments of its class by split; the name is empty where the authors made none.
        files: what the class downloads, relative to its root.
        options: arguments of the class that choose a variant.
    """

    splits: Splits
    files: str
    options: tuple[str, ...] = ()


def _idx_files(folder: str) -> str:
    """The four files of a dataset in the format of MNIST."""
    names = (
        f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    )
    return ", ".join(f"{folder}/raw/{name}" for name in names)


SETS = {
    "CIFAR10": TorchvisionSet(_FLAG, "cifar-10-python.tar.gz"),
    "CIFAR100": TorchvisionSet(_FLAG, "cifar-100-python.tar.gz"),
    "Caltech101": TorchvisionSet(_NONE, "caltech101/caltech-101.zip"),
    "Caltech256": TorchvisionSet(_NONE, "caltech256/256_ObjectCategories.tar"),
    "Country211": TorchvisionSet({**_THREE, "validation": {"split": "valid"}}, "country211.tgz"),
    "DTD": TorchvisionSet(_THREE, "dtd/dtd-r1.0.1.tar.gz", ("partition",)),
    "EMNIST": TorchvisionSet(_FLAG, "EMNIST/raw/gzip.zip", ("split",)),
    "EuroSAT": TorchvisionSet(_NONE, "eurosat/EuroSAT.zip"),
    "FGVCAircraft": TorchvisionSet(_THREE, "fgvc-aircraft-2013b.tar.gz", ("annotation_level",)),
    "FashionMNIST": TorchvisionSet(_FLAG, _idx_files("FashionMNIST")),
    "Flowers102": TorchvisionSet(
        _THREE, "flowers-102/102flowers.tgz, flowers-102/imagelabels.mat, flowers-102/setid.mat"
    ),
    "Food101": TorchvisionSet(_TWO, "food-101.tar.gz"),
    "GTSRB": TorchvisionSet(
        _TWO,
        "gtsrb/GTSRB-Training_fixed.zip, gtsrb/GTSRB_Final_Test_Images.zip, gtsrb/GTSRB_Final_Test_GT.zip",
    ),
    "Imagenette": TorchvisionSet(
        {"train": {"split": "train"}, "validation": {"split": "val"}},
        "imagenette2.tgz (imagenette2-320.tgz, imagenette2-160.tgz for the sizes 320px, 160px)",
        ("size",),
    ),
    "KMNIST": TorchvisionSet(_FLAG, _idx_files("KMNIST")),
    "MNIST": TorchvisionSet(_FLAG, _idx_files("MNIST")),
    "OxfordIIITPet": TorchvisionSet(
        {**_TWO, "train": {"split": "trainval"}},
        "oxford-iiit-pet/images.tar.gz, oxford-iiit-pet/annotations.tar.gz",
    ),
    "QMNIST": TorchvisionSet(
        _FLAG,
        "QMNIST/raw/qmnist-train-images-idx3-ubyte.gz, QMNIST/raw/qmnist-train-labels-idx2-int.gz, "
        "QMNIST/raw/qmnist-test-images-idx3-ubyte.gz, QMNIST/raw/qmnist-test-labels-idx2-int.gz",
    ),
    "RenderedSST2": TorchvisionSet(_THREE, "rendered-sst2.tgz"),
    "SEMEION": TorchvisionSet(_NONE, "semeion.data"),
    "STL10": TorchvisionSet(_TWO, "stl10_binary.tar.gz", ("folds",)),
    "SVHN": TorchvisionSet(_TWO, "train_32x32.mat, test_32x32.mat"),
    "USPS": TorchvisionSet(_FLAG, "usps.bz2, usps.t.bz2"),
}
