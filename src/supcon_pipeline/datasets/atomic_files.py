"""A local file system on which a file is complete or absent."""

import io
from pathlib import Path
from types import TracebackType
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.checksums import checksum_of
from supcon_pipeline.datasets.artifacts import is_version


class _AtomicFile(io.FileIO):
    """A file for writing that appears at its path when closed, unless it was discarded."""

    def __init__(self, path: str):
        # Entered here and left in `close` or `discard`, because a file may outlive any `with` block.
        self._place = atomic_path(Path(path), checksum_of if is_version(Path(path)) else None)
        self.is_discarded = False
        try:
            super().__init__(self._place.__enter__(), "wb")
        except BaseException as error:
            self.discard(error)
            raise

    def write(self, data: Any) -> int:
        if self.is_discarded:
            # A buffer tries once more when it is closed.
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BaseException as error:
            self.discard(error)
            raise

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        except BaseException as error:
            self.discard(error)
            raise
        if not self.is_discarded:
            self._place.__exit__(None, None, None)

    def discard(self, error: BaseException) -> None:
        """Leave nothing behind, because of an error, which is raised as `atomic_path` tells it."""
        if not self.is_discarded:
            self.is_discarded = True
            self._place.__exit__(type(error), error, error.__traceback__)


class _Discarding:
    """Mixin for file objects: an exception in the `with` block discards what was written."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self.raw_file.discard(error)  # type: ignore[attr-defined]
        finally:
            self.close()  # type: ignore[attr-defined]


class _BinaryFile(_Discarding, io.BufferedWriter):
    @property
    def raw_file(self) -> Any:
        return self.raw


class _TextFile(_Discarding, io.TextIOWrapper):
    @property
    def raw_file(self) -> Any:
        return self.buffer.raw  # type: ignore[attr-defined]


class AtomicLocalFileSystem(LocalFileSystem):
    """The local file system, except that a file appears at its path only once it is complete.

    Kedro's own datasets write straight to the final path: a version left half-written by a killed process
    or on a full disk would be the latest from then on. The file of a version gets a checksum.
    """

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """A file object; in modes `w`, `wt` and `wb` it appears at `path` when it is closed."""
        if mode not in ("w", "wt", "wb") or kwargs.get("compression"):
            return super().open(path, mode, **kwargs)
        binary = _BinaryFile(_AtomicFile(self._strip_protocol(path)))
        if mode == "wb":
            return binary
        text_arguments = {key: kwargs[key] for key in ("encoding", "errors", "newline") if key in kwargs}
        return _TextFile(binary, **{"encoding": "utf-8", **text_arguments})


def use_atomic_files() -> None:
    """Make every local file that fsspec writes in this process atomic."""
    for protocol in ("file", "local"):
        fsspec.register_implementation(protocol, AtomicLocalFileSystem, clobber=True)
