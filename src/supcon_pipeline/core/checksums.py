"""Checksums of files, each in a small file beside the one it is of."""

import time
from pathlib import Path, PurePath
from typing import TypeVar

import xxhash

# What the name of a checksum's file adds to that of its file; its content is that of `xxh128sum`.
SUFFIX = ".xxh128"
_BLOCK_BYTES = 4 * 2**20
AnyPath = TypeVar("AnyPath", bound=PurePath)
# Files found unchanged in this process, by what changes when they are written.
_unchanged: set[tuple[int, int, int, int, str]] = set()
# A file written twice within one tick of its file system's clock has the same time both times.
_TICK_SECONDS = 2.0


def checksum_of(path: Path) -> str:
    """XXH3 of a file's content, 128 bits as 32 hexadecimal digits: against accidents, not against forgery."""
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def checksum_path(path: AnyPath) -> AnyPath:
    """The file with the checksum of another."""
    return path.with_name(path.name + SUFFIX)


def read_checksums(path: Path) -> list[str]:
    """The checksums that a file may have; empty where none was written beside it.

    There are two where a file is replaced again and again: that of the newest content comes first, that of
    the content before it second, which a process killed in between has left.
    """
    try:
        return parse_checksums(checksum_path(path).read_bytes())
    except FileNotFoundError:
        return []


def parse_checksums(content: bytes) -> list[str]:
    """The checksums in the content of a checksum's file."""
    # An emptied file is a checksum that nothing has.
    lines = content.decode("ascii", "replace").rstrip("\n").split("\n")
    return [line.partition(" ")[0] for line in lines]


def checksum_line(checksum: str, name: str) -> str:
    """A checksum as its file has it, with the name of what it is of."""
    return f"{checksum}  {name}\n"


def is_proven(path: Path) -> bool:
    """Whether a file is there and has the checksum beside it."""
    return path.is_file() and bool(read_checksums(path)) and is_unchanged(path)


def is_unchanged(path: Path) -> bool:
    """Whether a file has the checksum beside it, or has none beside it.

    A file is read for this once in a process, as long as it is not written again.
    """
    expected = read_checksums(path)
    if not expected:
        return True
    begin, status = time.time(), path.stat()
    place = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if any((*place, checksum) in _unchanged for checksum in expected):
        return True
    found = checksum_of(path)
    if found in expected:
        if status.st_mtime < begin - _TICK_SECONDS:
            _unchanged.add((*place, found))
        return True
    # Another process may have replaced the file since its checksums were read.
    return found in read_checksums(path)
