"""Files and folders that appear on disk complete or not at all."""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from supcon_pipeline.core.checksums import checksum_line, checksum_of, checksum_path, read_checksums

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE_BYTES = 2**20
# What the name of a file that was set aside adds to the one it had.
BROKEN = ".broken"


@contextmanager
def atomic_path(
    target: Path, checksum: Callable[[Path], str] | None = None, num_bytes: int | None = None
) -> Iterator[Path]:
    """A temporary path next to `target` that replaces it if the block succeeds.

    A reader sees the old file or the complete new one, even if the process is killed. After an exception,
    nothing is left behind.

    Args:
        target: the file.
        checksum: gives the checksum of what was written, which is kept beside the target; none for no
            checksum.
        num_bytes: size of the file where it is known, for messages.

    Raises:
        OSError: where the system refuses to write, as on a full disk; it names `target`.
    """
    temporary = _temporary_path(target)
    try:
        with _naming_the_target(target, temporary, num_bytes):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush_to_disk(temporary)
            if checksum:
                write_checksum(target, checksum(temporary))
            os.replace(temporary, target)
            _flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Like `atomic_path`, for a folder that must not exist yet."""
    temporary = _temporary_path(target)
    try:
        with _naming_the_target(target, temporary):
            temporary.mkdir(parents=True)
            yield temporary
            for path in [*temporary.rglob("*"), temporary]:
                _flush_to_disk(path)
            os.replace(temporary, target)
            _flush_to_disk(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _LateFile(io.FileIO):
    """A file that keeps its error until the end, and takes what is written after it for nothing."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        num_bytes = rest.nbytes
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return num_bytes


@contextmanager
def open_for_torch(path: Path) -> Iterator[IO[bytes]]:
    """A new file for `torch.save`, which ends the process where a file refuses what it writes.

    Raises:
        OSError: at the end of the block, where the file has refused something.
    """
    with _LateFile(path, "wb") as file:
        yield file
        if file.error is not None:
            raise file.error


def set_aside(path: Path) -> Path:
    """Give a file that cannot be used another name, in place of any that had this name before."""
    aside = path.with_name(path.name + BROKEN)
    os.replace(path, aside)
    checksum_path(path).unlink(missing_ok=True)
    return aside


def _temporary_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid4().hex}.tmp")


def write_checksum(target: Path, checksum: str) -> None:
    """Keep the checksum of what is about to replace `target`, and until then that of `target` itself."""
    known = [checksum, *(read_checksums(target)[:1] if target.exists() else [])]
    with atomic_path(checksum_path(target)) as temporary:
        temporary.write_text("".join(checksum_line(line, target.name) for line in known), "utf-8")


def create_file(target: Path, content: bytes) -> None:
    """Write a new file and its checksum; it appears complete, and of several processes one succeeds.

    Raises:
        FileExistsError: where it exists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(target)
    try:
        with _naming_the_target(target, temporary, len(content)):
            temporary.write_bytes(content)
            _flush_to_disk(temporary)
            # Unlike a renaming, a link never replaces what is there.
            os.link(temporary, target)
            # Of several processes, only the one that succeeded comes to this.
            write_checksum(target, checksum_of(temporary))
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
def _naming_the_target(target: Path, temporary: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Let an error of the system say which file could not be written and, on a full disk, its size.

    Raises:
        OSError: with the target in place of its temporary path; also where a library has noticed a full disk
            and raised something else.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        number = number or _refusal_of_disk(temporary)
        if number in _NO_ROOM:
            full = OSError(number, os.strerror(number), str(target))
            full.add_note(f"needs {_describe_size(temporary, num_bytes)}")
            raise full from error
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(target)
        raise


def _refusal_of_disk(temporary: Path) -> int | None:
    """The number of the error that a little more to write meets; none where there is room for it.

    Some libraries raise errors of their own on a full disk, so the disk is asked.
    """
    try:
        with (temporary / "probe" if temporary.is_dir() else temporary).open("ab") as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as refused:
        return refused.errno if refused.errno in _NO_ROOM else None
    return None


def _describe_size(temporary: Path, num_bytes: int | None) -> str:
    if num_bytes is not None:
        return f"{num_bytes:,} bytes"
    files = [temporary, *temporary.rglob("*")]
    return f"more than {sum(path.stat().st_size for path in files if path.is_file()):,} bytes"
