"""The classification datasets of torchvision, by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supcon_pipeline.core.data.images import ImageItem, RawImages
from supcon_pipeline.core.messages import InputError, suggest
from supcon_pipeline.datasets.image_folder import FilePaths
from supcon_pipeline.datasets.image_source import ImageSource
from supcon_pipeline.datasets.items import JoinedItems
from supcon_pipeline.datasets.local_path import require_local
from supcon_pipeline.datasets.torchvision_sets import SETS, TorchvisionSet


class TorchvisionImagesDataset(ImageSource):
    """A classification dataset of torchvision, with the splits of its authors where they made some.

    It is downloaded if its files are missing.

    Args:
        name: class name in `torchvision.datasets`, such as `CIFAR10`.
        filepath: folder of its files.
        options: arguments of that class that choose a variant, such as `split` of EMNIST.
        metadata: for plugins.
    """

    def __init__(
        self,
        name: str,
        filepath: str,
        options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        self.name, self.filepath, self.options = name, require_local(filepath), options or {}
        self.metadata = metadata

    def load(self) -> RawImages:
        """The images of all splits, train first."""
        parts = self._open_splits()
        # Some sets list classes without images.
        present, labels = np.unique(
            np.concatenate([_read_labels(part) for _, part in parts]), return_inverse=True
        )
        names = _class_names(parts[0][1], present)
        return RawImages(
            images=self._items([part for _, part in parts]),
            labels=labels.astype(np.int64),
            class_names=[names[label] for label in present],
            ids=[f"{split or 'image'}/{index:06d}" for split, part in parts for index in range(len(part))],
            source=f"torchvision.datasets.{self.name}",
            splits=[split for split, part in parts for _ in range(len(part))] if parts[0][0] else None,
        )

    def _items(self, parts: Sequence[Any]) -> Sequence[ImageItem]:
        """The image files where the set has them, which worker processes can decode; else its entries."""
        files = [_list_files(part) for part in parts]
        if not all(files):
            return JoinedItems(parts, read_image)
        return FilePaths(
            self.filepath.absolute(), [str(Path(file).absolute()) for part in files for file in part]
        )

    def _open_splits(self) -> list[tuple[str, Any]]:
        """Name and content of each split of the authors; the name is empty where they made none."""
        from torchvision import datasets

        if self.name not in SETS:
            raise InputError(
                "name must be a classification dataset of torchvision, "
                f"got {self.name!r}; {suggest(self.name, SETS)}"
            )
        kind, known = getattr(datasets, self.name), SETS[self.name]
        unknown = ", ".join(name for name in self.options if name not in known.options)
        if unknown:
            choices = ", ".join(known.options) or "none"
            raise InputError(f"options of {self.name} must be {choices}, got {unknown}")
        try:
            return [(split, self._open(kind, arguments)) for split, arguments in known.splits.items()]
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(self._explain(error, known)) from error

    def _explain(self, error: Exception, known: TorchvisionSet) -> str:
        """Why torchvision failed: because of its options or of its files."""
        reason = " ".join(str(error).split())
        if known.options and isinstance(error, TypeError | ValueError):
            return f"options of {self.name} must fit it, got {self.options}: {reason}"
        return (
            f"{self.name} must be in {self.filepath.absolute()} or downloadable, got {reason[:200]}; "
            f"without a network, put there: {known.files}"
        )

    def _open(self, kind: Any, split: Mapping[str, Any]) -> Any:
        """The dataset from its files, which are downloaded if they are missing."""
        given = {"root": str(self.filepath), **split, **self.options}
        try:
            return kind(**given, download=False)
        except (RuntimeError, FileNotFoundError):
            self.filepath.mkdir(parents=True, exist_ok=True)
            return kind(**given, download=True)

    def _describe(self) -> dict[str, Any]:
        return {"name": self.name, "filepath": self.filepath, "options": self.options}


def read_image(entry: tuple[Any, Any]) -> np.ndarray:
    """The pixels of an entry, in grey or colour."""
    image = entry[0]
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _list_files(part: Any) -> Sequence[str | Path]:
    """The image files, kept by each dataset under a name of its own; empty where it holds arrays."""
    for name in ("_image_files", "_images"):
        if hasattr(part, name):
            return list(getattr(part, name))
    if hasattr(part, "categories"):
        (top,) = Path(part.root).glob("*_ObjectCategories")
        return [file for category in part.categories for file in sorted((top / category).glob("*.jpg"))]
    samples = getattr(part, "samples", getattr(part, "_samples", ()))
    return [file for file, _ in samples]


def _read_labels(part: Any) -> np.ndarray:
    """The labels alone, kept by each dataset under a name of its own."""
    for name in ("targets", "labels", "_labels", "y"):
        if hasattr(part, name):
            labels = np.asarray(getattr(part, name), dtype=np.int64)
            # QMNIST also has the writer and more.
            return labels if labels.ndim == 1 else labels[:, 0]
    samples = getattr(part, "_samples", None)
    if samples is not None:
        return np.array([label for _, label in samples], dtype=np.int64)
    return np.array([part[index][1] for index in range(len(part))], dtype=np.int64)


def _class_names(part: Any, labels: np.ndarray) -> list[str]:
    """The class names by label; the labels themselves where the dataset has no names."""
    names = getattr(part, "classes", getattr(part, "categories", None))
    if names is None:
        return [str(label) for label in range(int(labels.max()) + 1)]
    # Some datasets give a class several names.
    return [name if isinstance(name, str) else ", ".join(name) for name in names]
