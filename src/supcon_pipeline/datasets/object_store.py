"""Artifacts in an object store, with copies on the disk of this machine."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import fsspec

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.checksums import (
    SUFFIX,
    checksum_line,
    checksum_of,
    checksum_path,
    is_proven,
    parse_checksums,
)
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.artifacts import ArtifactError, reading, refuse
from supcon_pipeline.datasets.disk import Disk

_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ObjectStore(Disk):
    """A bucket, whose files appear whole; each has a copy here, as its local readers and writers need it.

    A file is written to its copy and then put into the bucket, after its checksum. To be read, it is fetched
    unless it is in the bucket as it was when this machine put or fetched it, and the copy is whole. What is
    fetched must have the checksum in the bucket. Copies may be deleted at any time.

    Args:
        protocol: the beginning of an address, such as `s3`.
        options: of its file system.
    """

    protocol: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fs(self) -> Any:
        """Its file system, which asks the bucket each time: others write there, too."""
        return fsspec.filesystem(self.protocol, **{**self.options, "use_listings_cache": False})

    def address(self, path: PurePath) -> str:
        """The address of an artifact, such as `s3://bucket/path`."""
        return f"{self.protocol}://{str(path).lstrip('/')}"

    def copy_of(self, path: PurePath) -> Path:
        """Its copy on this machine, which may be absent or that of another content."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache, "supcon_pipeline", "artifacts", self.protocol, str(path).lstrip("/"))

    def drop_copy(self, path: PurePath) -> None:
        """Remove the copy of a folder, so that it can be written."""
        shutil.rmtree(self.copy_of(path), ignore_errors=True)

    def publish(self, path: PurePath) -> None:
        """Put a file from its copy into the bucket.

        Raises:
            ArtifactError: where the bucket does not take it.
        """
        self._put(path)
        _state_path(self.copy_of(path)).write_text(self._state_of(path), "ascii")

    def _put(self, path: PurePath) -> None:
        copy = self.copy_of(path)
        with self._answering(path):
            # The checksum first: what is there has one.
            for file, place in ((checksum_path(copy), checksum_path(path)), (copy, path)):
                if file.exists():
                    self.fs.put_file(str(file), str(place))

    def publish_folder(self, path: PurePath, marker: PurePath | None = None) -> None:
        """Put the files of a folder into the bucket, and last a file with their checksums.

        Args:
            path: the folder.
            marker: that file; by default beside the folder. Without it, the folder is absent.

        Raises:
            ArtifactError: where the bucket does not take it.
        """
        copy, marker = self.copy_of(path), marker or checksum_path(path)
        files = [file.relative_to(copy) for file in sorted(copy.rglob("*")) if file.is_file()]
        names = {file: (PurePosixPath(path) / file).relative_to(marker.parent) for file in files}
        lines = [checksum_line(checksum_of(copy / file), str(names[file])) for file in files]
        with self._answering(path):
            if self.fs.exists(str(marker)):
                self.fs.rm_file(str(marker))
            for file in files:
                self.fs.put_file(str(copy / file), str(PurePosixPath(path) / file))
            self.fs.pipe_file(str(marker), "".join(lines).encode())

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        with self._answering(PurePosixPath(path)):
            return bool(self.fs.exists(path))

    def has_folder(self, path: str) -> bool:
        """Whether a folder is there as a whole."""
        return self.exists(str(checksum_path(PurePosixPath(path))))

    def is_folder(self, path: PurePath) -> bool:
        """Whether there is a folder, complete or not."""
        with self._answering(path):
            return bool(self.fs.isdir(str(path)))

    def names_in(self, folder: PurePath) -> list[str]:
        """The names of what is in a folder, which must be there."""
        with self._answering(folder):
            return [PurePosixPath(path).name for path in self.fs.ls(str(folder), detail=False)]

    def glob(self, pattern: str) -> list[str]:
        """All versions of an artifact, and what looks like one.

        Args:
            pattern: as Kedro has it, `<folder>/*/<name>`.
        """
        folder, _, name = pattern.rpartition("/*/")
        depth = len(PurePosixPath(folder.lstrip("/")).parts) + 2
        with self._answering(PurePosixPath(folder)):
            # Of a folder, the file with its checksums is found: one request lists a thousand files.
            found = {path.removesuffix(SUFFIX) for path in self.fs.find(folder)}
        places = (PurePosixPath(path) for path in found)
        return [str(p) for p in places if p.name == name and len(p.relative_to(p.anchor).parts) == depth]

    @contextmanager
    def reading(self, path: PurePath, remedy: str = "") -> Iterator[Path]:
        """For a block that reads an artifact: its copy, fetched where need be.

        Raises:
            ArtifactError: where it has changed since it was saved, or cannot be fetched or read.
        """
        copy = self.copy_of(path)
        state = self._state_of(path)
        if not self._is_current(copy, state):
            check = partial(self._checksum, path, self._checksums(path), remedy)
            with atomic_path(copy, check) as temporary, self._answering(path):
                self.fs.get_file(str(path), str(temporary))
            _state_path(copy).write_text(state, "ascii")
        with reading(copy, remedy, self.address(path)):
            yield copy

    def _state_of(self, path: PurePath) -> str:
        """What is another once a file is put again, as text; empty where it is absent."""
        with self._answering(path):
            try:
                return str(self.fs.ukey(str(path)))
            except FileNotFoundError:
                return ""

    def _is_current(self, copy: Path, state: str) -> bool:
        """Whether a copy is whole, and that of a file in the bucket with this state."""
        known = _state_path(copy)
        is_same = bool(state) and known.is_file() and known.read_text("ascii", "replace") == state
        return is_same and is_proven(copy)

    def _checksum(self, path: PurePath, expected: list[str], remedy: str, fetched: Path) -> str:
        """The checksum of what was fetched, which must be that of what was saved."""
        found = checksum_of(fetched)
        # Another process may have replaced the file since its checksums were read.
        if expected and found not in expected and found not in self._checksums(path):
            raise refuse(path, "be as it was saved, got other content", remedy, self.address(path))
        return found

    def _checksums(self, path: PurePath) -> list[str]:
        """The checksums that a file in the bucket may have; empty where none was put beside it."""
        with self._answering(path):
            try:
                return parse_checksums(self.fs.cat_file(str(checksum_path(path))))
            except FileNotFoundError:
                return []

    def create(self, path: PurePath, content: bytes) -> None:
        """Put a new file and its checksum into the bucket; of several processes one succeeds.

        Raises:
            FileExistsError: where it exists.
            ArtifactError: where the bucket does not take it.
        """
        with atomic_path(self.copy_of(path), checksum_of, len(content)) as temporary:
            temporary.write_bytes(content)
            with self._answering(path):
                self.fs.pipe_file(str(path), content, mode="create")
        with self._answering(path):
            self.fs.put_file(str(checksum_path(self.copy_of(path))), str(checksum_path(path)))

    def size_of(self, path: PurePath) -> int:
        """How many bytes are in a folder, which may be absent."""
        with self._answering(path):
            return int(self.fs.du(str(path)))

    def remove(self, path: PurePath) -> None:
        """Remove a folder from the bucket, where it is there, and its copy."""
        with self._answering(path), suppress(FileNotFoundError):
            self.fs.rm(str(path), recursive=True)
        self.drop_copy(path)

    @contextmanager
    def _answering(self, path: PurePath) -> Iterator[None]:
        """For a block that asks the bucket: say in one line what it answers instead.

        Raises:
            ArtifactError: where it refuses, or cannot be reached.
        """
        try:
            yield
        except (InputError, FileExistsError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _OF_THIS_DISK:
                raise
            words = " ".join(str(error).split())[:200] or type(error).__name__
            if isinstance(error, FileNotFoundError) and " " not in words:
                # Some libraries give the address that they asked, and no word more.
                words = f"no {words}"
            raise ArtifactError(
                f"{self.address(path)} must be open to this user, got: {words}; check its address and your "
                "credentials and network, and start the command again; a run goes on under its SUPCON_RUN_ID"
            ) from error


def _state_path(copy: Path) -> Path:
    """The file that says of which state of the file in the bucket a copy is."""
    return copy.with_name(f"{copy.name}.state")
