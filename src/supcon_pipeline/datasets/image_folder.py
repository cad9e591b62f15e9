"""A folder of images with one folder per class, with or without splits."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from supcon_pipeline.core.data.folders import (
    ENDINGS,
    decode_name,
    describe_missing,
    is_folder,
    list_entries,
    walk_images,
)
from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.messages import InputError, name_some
from supcon_pipeline.datasets.image_source import ImageSource

SPLIT_FOLDERS = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
# Other names in use for splits: a folder that holds only such names holds no classes.
_OTHER_SPLIT_FOLDERS = ("training", "testing")


class FilePaths(Sequence[Path]):
    """Paths below a folder, built on access: only the names are kept in memory."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        if isinstance(index, slice):
            return FilePaths(self.folder, self.names[index])
        return self.folder / self.names[index]


class ImageFolderDataset(ImageSource):
    """Images in `<class>/`; or in `train/<class>/` with optional `valid/`, `validation/` or `val/`, `test/`.

    Folders inside a class belong to it. Links are followed, and each folder is read once. Hidden files, those
    that systems and network drives keep for themselves, and files that do not end like an image are skipped
    and counted; a class folder without an image is named.

    Args:
        path: the folder; none as long as it has not been set.
        parameter: name of the parameter that sets the path, for messages.
        metadata: for plugins.
    """

    def __init__(
        self, path: str | None, parameter: str = "images.path", metadata: dict[str, Any] | None = None
    ):
        self.path, self.parameter, self.metadata = path, parameter, metadata

    def load(self) -> RawImages:
        """The paths and labels of the images; no image is read."""
        folder = require_folder(self.path, self.parameter)
        ignored: Counter[str] = Counter()
        names: list[str] = []
        classes: list[str] = []
        splits: list[str] = []
        empty: list[str] = []
        for split, class_folder in _class_folders(folder, ignored, self.parameter):
            class_name = decode_name(unicodedata.normalize("NFC", class_folder.name))
            files = [os.path.relpath(file, folder) for file in walk_images(class_folder, ignored)]
            empty += [] if files else [decode_name(os.path.relpath(class_folder, folder))]
            names += files
            classes += [class_name] * len(files)
            splits += [split] * len(files)
        if empty:
            ignored[f"class folders without an image ({name_some(empty, 10)})"] = len(empty)
        if not names:
            raise InputError(
                f"{self.parameter} must hold images in <class>/ or train/<class>/, got none in {folder}"
                f"{_count_words(ignored)}; images end in {', '.join(ENDINGS)}"
            )
        class_names, labels = np.unique(np.array(classes), return_inverse=True)
        return RawImages(
            images=FilePaths(folder, names),
            labels=labels.astype(np.int64),
            class_names=class_names.tolist(),
            ids=[decode_name(Path(name).as_posix()) for name in names],
            source=str(folder),
            splits=splits if all(splits) else None,
            ignored=dict(sorted((+ignored).items())),
        )

    def _exists(self) -> bool:
        return self.path is not None and Path(self.path).is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"path": self.path}


def require_folder(path: str | None, parameter: str = "images.path") -> Path:
    """The path as an absolute folder; the parameter that sets it is named in messages.

    Raises:
        InputError: where it is not set or not a folder.
    """
    if path is None:
        raise InputError(
            f"{parameter} must be given, got nothing; add --params {parameter}=<folder>, "
            "or set it in conf/<experiment>/parameters.yml"
        )
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"{parameter} must be a folder, got {folder}, {describe_missing(folder)}")
    return folder


def _class_folders(folder: Path, ignored: Counter[str], parameter: str) -> Iterator[tuple[str, Path]]:
    """Split and folder of each class, sorted by name; the split is empty where there are none.

    Raises:
        InputError: where it is ambiguous which folders are splits and which are classes.
    """
    children = _folders(folder, ignored, parameter)
    splits = [child for child in children if child.name.lower() in SPLIT_FOLDERS]
    others = [child for child in children if child not in splits]
    if any(child.name.lower() == "train" for child in splits):
        _require_no_images(others)
        ignored["folders beside train"] += len(others)
        for child in splits:
            split = SPLIT_FOLDERS[child.name.lower()]
            yield from ((split, class_folder) for class_folder in _folders(child, ignored, parameter))
        return
    if children and all(child.name.lower() in (*SPLIT_FOLDERS, *_OTHER_SPLIT_FOLDERS) for child in children):
        found = ", ".join(child.name for child in children)
        raise InputError(
            f"{parameter} must hold the folder train beside other splits, got {found} in {folder}; "
            f"name the folders of splits {', '.join(SPLIT_FOLDERS)}"
        )
    below = _folders(children[0], Counter(), parameter) if len(children) == 1 else []
    if "train" in {child.name.lower() for child in below}:
        raise InputError(
            f"{parameter} must hold train or folders of classes, got {folder}; did you mean {children[0]}?"
        )
    yield from (("", child) for child in children)


def _require_no_images(folders: Sequence[Path]) -> None:
    holding = [decode_name(child.name) for child in folders if any(walk_images(child, Counter()))]
    if holding:
        raise InputError(
            f"folders of images beside train must be {', '.join(list(SPLIT_FOLDERS)[1:])}, "
            f"got {name_some(holding)}; rename or move them, or rename train if it is a class"
        )


def _folders(folder: Path, ignored: Counter[str], parameter: str) -> list[Path]:
    """The folders in a folder; files beside them belong to no class and are counted.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        entries = list_entries(folder, ignored)
    except OSError as error:
        raise InputError(f"{parameter} must be readable, got {folder}: {error.strerror}") from error
    folders = [Path(entry.path) for entry in entries if is_folder(entry)]
    ignored["outside the class folders"] += len(entries) - len(folders)
    return folders


def _count_words(ignored: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted((+ignored).items()))
    return f" ({kinds})" if kinds else ""
