"""Artifacts on the disk of this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import fsspec

from supcon_pipeline.core.atomic import atomic_path, create_file
from supcon_pipeline.core.checksums import checksum_of
from supcon_pipeline.datasets.artifacts import reading


class Disk:
    """The disk of this machine, where an artifact is read and written at its own place."""

    @property
    def fs(self) -> Any:
        """Its file system, as fsspec has it."""
        return fsspec.filesystem("file")

    def address(self, path: PurePath) -> str:
        """How a person finds an artifact."""
        return str(path)

    def copy_of(self, path: PurePath) -> Path:
        """Where a new artifact is written, and read while it is written: here it is no copy."""
        return Path(path)

    def drop_copy(self, path: PurePath) -> None:
        """Remove the copy of a folder, before it is written: here it is no copy."""

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return Path(path).exists()

    def has_folder(self, path: str) -> bool:
        """Whether a folder is there as a whole."""
        return Path(path).exists()

    def is_folder(self, path: PurePath) -> bool:
        """Whether there is a folder, complete or not."""
        return Path(path).is_dir()

    def names_in(self, folder: PurePath) -> list[str]:
        """The names of what is in a folder, which must be there."""
        return os.listdir(folder)

    def publish(self, path: PurePath) -> None:
        """Let others have a file that was written: they have."""

    def publish_folder(self, path: PurePath, marker: PurePath | None = None) -> None:
        """Let others have a folder that was written: they have."""

    @contextmanager
    def reading(self, path: PurePath, remedy: str = "") -> Iterator[Path]:
        """For a block that reads an artifact: its file, see `datasets.artifacts.reading`."""
        with reading(Path(path), remedy):
            yield Path(path)

    def create(self, path: PurePath, content: bytes) -> None:
        """Write a new file; of several processes one succeeds.

        Raises:
            FileExistsError: where it exists.
        """
        create_file(Path(path), content)

    def write(self, path: PurePath, content: bytes) -> None:
        """Write a file, or replace it."""
        with atomic_path(self.copy_of(path), checksum_of, len(content)) as temporary:
            temporary.write_bytes(content)
        self._put(path)

    def _put(self, path: PurePath) -> None:
        """Let others have a file: they have."""

    def size_of(self, path: PurePath) -> int:
        """How many bytes are in a folder, which may be absent."""
        place = Path(path)
        files = place.rglob("*") if place.is_dir() else [place]
        return sum(file.lstat().st_size for file in files if file.exists() and not file.is_dir())

    def remove(self, path: PurePath) -> None:
        """Remove a file, or a folder with all that is in it, where it is there."""
        place = Path(path)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
