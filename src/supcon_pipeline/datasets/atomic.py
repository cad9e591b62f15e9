"""Files that are on disk whole or not at all."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path in the folder of `target`, which takes its place when the block ends well.

    A reader sees the old file or the whole new one, whenever the process is killed. After an exception
    nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, target)
        _flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """As `atomic_path`, for a folder, which must not be there yet."""
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _flush_to_disk(path)
        os.replace(temporary, target)
        _flush_to_disk(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _AtomicFile(io.FileIO):
    """A file for writing that appears at its path when it is closed, unless it was discarded."""

    def __init__(self, path: str):
        # Entered here and left in `close`, because a file may outlive any one block.
        self._place = atomic_path(Path(path))
        super().__init__(self._place.__enter__(), "wb")
        self.is_discarded = False

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self.is_discarded:
            self._place.gen.close()
        else:
            self._place.__exit__(None, None, None)


class _Discarding:
    """Mixed into a file object: leaving its block by an exception discards what was written."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.raw_file.is_discarded = True  # type: ignore[attr-defined]
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
    """The local file system, on which a written file appears at its path only when it is complete.

    Kedro's own datasets write straight to the final path, and a version that a killed process left
    half-written would be "latest" from then on.
    """

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """A file object; for modes `w`, `wt` and `wb` it appears at `path` when it is closed."""
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
