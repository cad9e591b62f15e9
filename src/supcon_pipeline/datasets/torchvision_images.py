"""The classification sets of torchvision by name."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from kedro.io import AbstractDataset, DatasetError

from supcon_pipeline.core.images import ImageItem, RawImages
from supcon_pipeline.datasets.image_folder import FilePaths
from supcon_pipeline.datasets.items import JoinedItems

# How the sets with an official test split name it; the splits come from the authors.
_BY_FLAG = ("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS")
_BY_NAME = {
    "SVHN": ("train", "test"),
    "STL10": ("train", "test"),
    "GTSRB": ("train", "test"),
    "Food101": ("train", "test"),
    "OxfordIIITPet": ("trainval", "test"),
    "Country211": ("train", "valid", "test"),
    "DTD": ("train", "val", "test"),
    "FGVCAircraft": ("train", "val", "test"),
    "Flowers102": ("train", "val", "test"),
    "RenderedSST2": ("train", "val", "test"),
    "Imagenette": ("train", "val"),
}
_ROLES = {"train": "train", "trainval": "train", "val": "validation", "valid": "validation", "test": "test"}
NAMES = tuple(sorted((*_BY_FLAG, *_BY_NAME)))

# What makes other images than the files hold.
_CHANGING = ("transform", "transforms", "loader")


class TorchvisionImagesDataset(AbstractDataset[Any, RawImages]):
    """A classification set of torchvision, with the splits of its authors.

    Downloaded where there is a network and the files are not there yet.

    Args:
        name: of the class in `torchvision.datasets`, as `CIFAR10`.
        filepath: the folder of its files.
        options: further arguments of that class, for each split.
        metadata: for plugins.
    """

    def __init__(
        self,
        name: str,
        filepath: str,
        options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        self.name, self.filepath, self.options = name, Path(filepath), options or {}
        self.metadata = metadata

    def load(self) -> RawImages:
        """The images of all splits, train first."""
        parts = self._open_splits()
        labels = np.concatenate([_read_labels(part) for _, part in parts])
        return RawImages(
            images=self._items([part for _, part in parts]),
            labels=labels,
            class_names=_class_names(parts[0][1], labels),
            ids=[f"{split}/{index:06d}" for split, part in parts for index in range(len(part))],
            source=f"torchvision.datasets.{self.name}",
            splits=[split for split, part in parts for _ in range(len(part))],
        )

    def _items(self, parts: Sequence[Any]) -> Sequence[ImageItem]:
        """The files where the set has some: those are decoded as files are, and by several processes."""
        files = [_list_files(part) for part in parts]
        if self.options.keys() & set(_CHANGING) or not all(files):
            return JoinedItems(parts, read_image)
        return FilePaths(
            self.filepath.absolute(), [str(Path(file).absolute()) for part in files for file in part]
        )

    def _open_splits(self) -> list[tuple[str, Any]]:
        """Each split of the authors by our name for it."""
        from torchvision import datasets

        if self.name not in NAMES:
            raise ValueError(f"name must be one of {', '.join(NAMES)}, got {self.name!r}")
        kind = getattr(datasets, self.name)
        names = ("train", "test") if self.name in _BY_FLAG else _BY_NAME[self.name]
        roles = [_ROLES[name] for name in names]
        arguments = [
            {"train": name == "train"} if self.name in _BY_FLAG else {"split": name} for name in names
        ]
        try:
            return [(role, self._open(kind, one)) for role, one in zip(roles, arguments, strict=True)]
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{self.name} must be in {self.filepath.absolute()} or be downloadable, got "
                f"{' '.join(str(error).split())[:200]}; without a network, put {_describe_files(kind)} there"
            ) from error

    def _open(self, kind: Any, split: dict[str, Any]) -> Any:
        """From the files that are there, else with a download."""
        given = {"root": str(self.filepath), **split, **self.options}
        try:
            return kind(**given, download=False)
        except (RuntimeError, FileNotFoundError):
            self.filepath.mkdir(parents=True, exist_ok=True)
            return kind(**given, download=True)

    def save(self, data: Any) -> NoReturn:
        """Refused: the set is only read."""
        raise DatasetError(f"TorchvisionImagesDataset must only be read, got {type(data).__name__} to save")

    def _describe(self) -> dict[str, Any]:
        return {"name": self.name, "filepath": self.filepath, "options": self.options}


def read_image(entry: tuple[Any, Any]) -> np.ndarray:
    """The pixels of an entry of a set, grey or in colour."""
    image = entry[0]
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _list_files(part: Any) -> Sequence[str | Path]:
    """The files of the images, which each set keeps under a name of its own; none where it has arrays."""
    for name in ("_image_files", "_images"):
        if hasattr(part, name):
            return list(getattr(part, name))
    samples = getattr(part, "samples", getattr(part, "_samples", ()))
    return [file for file, _ in samples]


def _read_labels(part: Any) -> np.ndarray:
    """The labels without the images, which each set keeps under a name of its own."""
    for name in ("targets", "labels", "_labels"):
        if hasattr(part, name):
            return np.asarray(getattr(part, name), dtype=np.int64)
    samples = getattr(part, "_samples", None)
    if samples is not None:
        return np.array([label for _, label in samples], dtype=np.int64)
    return np.array([part[index][1] for index in range(len(part))], dtype=np.int64)


def _class_names(part: Any, labels: np.ndarray) -> list[str]:
    names = getattr(part, "classes", None)
    if names is None:
        return [str(label) for label in range(int(labels.max()) + 1)]
    # Some sets give several words for a class.
    return [name if isinstance(name, str) else ", ".join(name) for name in names]


def _describe_files(kind: Any) -> str:
    """The files that torchvision would download, as far as the class says."""
    if hasattr(kind, "filename"):
        return str(kind.filename)
    if hasattr(kind, "resources"):
        return f"{', '.join(name for name, _ in kind.resources)} (in {kind.__name__}/raw)"
    if isinstance(getattr(kind, "split_list", None), dict):
        return ", ".join(entry[1] for entry in kind.split_list.values())
    return f"the files that {inspect.getmodule(kind).__name__} names"  # type: ignore[union-attr]
