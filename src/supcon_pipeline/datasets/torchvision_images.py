"""The classification sets of torchvision by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supcon_pipeline.core.data.images import ImageItem, RawImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.image_folder import FilePaths
from supcon_pipeline.datasets.image_source import ImageSource
from supcon_pipeline.datasets.items import JoinedItems
from supcon_pipeline.datasets.torchvision_sets import SETS, TorchvisionSet


class TorchvisionImagesDataset(ImageSource):
    """A classification set of torchvision, with the splits of its authors, if they have made some.

    Downloaded where there is a network and the files are not there yet.

    Args:
        name: of the class in `torchvision.datasets`, as `CIFAR10`.
        filepath: the folder of its files.
        options: those arguments of that class that choose among sets, as `split` of EMNIST.
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
        # Some sets name a class that none of their images has.
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
        """The files where the set has some: those are decoded as files are, and by several processes."""
        files = [_list_files(part) for part in parts]
        if not all(files):
            return JoinedItems(parts, read_image)
        return FilePaths(
            self.filepath.absolute(), [str(Path(file).absolute()) for part in files for file in part]
        )

    def _open_splits(self) -> list[tuple[str, Any]]:
        """Each split of the authors by our name for it; an empty name where they have none."""
        from torchvision import datasets

        if self.name not in SETS:
            raise InputError(f"name must be one of {', '.join(SETS)}, got {self.name!r}")
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
        """Why the class of torchvision could not be made, which is for its options or for its files."""
        reason = " ".join(str(error).split())
        if known.options and isinstance(error, TypeError | ValueError):
            return f"options of {self.name} must fit it, got {self.options}; {reason}"
        return (
            f"{self.name} must be in {self.filepath.absolute()} or be downloadable, got {reason[:200]}; "
            f"without a network, put there: {known.files}"
        )

    def _open(self, kind: Any, split: Mapping[str, Any]) -> Any:
        """From the files that are there, else with a download."""
        given = {"root": str(self.filepath), **split, **self.options}
        try:
            return kind(**given, download=False)
        except (RuntimeError, FileNotFoundError):
            self.filepath.mkdir(parents=True, exist_ok=True)
            return kind(**given, download=True)

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
    if hasattr(part, "categories"):
        (top,) = Path(part.root).glob("*_ObjectCategories")
        return [file for category in part.categories for file in sorted((top / category).glob("*.jpg"))]
    samples = getattr(part, "samples", getattr(part, "_samples", ()))
    return [file for file, _ in samples]


def _read_labels(part: Any) -> np.ndarray:
    """The labels without the images, which each set keeps under a name of its own."""
    for name in ("targets", "labels", "_labels", "y"):
        if hasattr(part, name):
            labels = np.asarray(getattr(part, name), dtype=np.int64)
            # QMNIST has the writer and more beside the class.
            return labels if labels.ndim == 1 else labels[:, 0]
    samples = getattr(part, "_samples", None)
    if samples is not None:
        return np.array([label for _, label in samples], dtype=np.int64)
    return np.array([part[index][1] for index in range(len(part))], dtype=np.int64)


def _class_names(part: Any, labels: np.ndarray) -> list[str]:
    """The names by label, as far as the set has any."""
    names = getattr(part, "classes", getattr(part, "categories", None))
    if names is None:
        return [str(label) for label in range(int(labels.max()) + 1)]
    # Some sets give several words for a class.
    return [name if isinstance(name, str) else ", ".join(name) for name in names]
