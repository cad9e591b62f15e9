"""Memory-mapped arrays that go to another process as the place of their file, not as a copy of it."""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MappedFile:
    """Where a memory-mapped array is.

    Args:
        filename: its file.
        offset: of its first byte.
        shape: of the array.
        dtype: of the array.
    """

    filename: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> np.memmap:
        """The array, to be read."""
        return np.memmap(self.filename, self.dtype, "r", self.offset, self.shape)


def file_of(array: Any) -> Any:
    """Where an array is, if it is a map of a file as a whole; else the array itself, or whatever it is.

    A slice of a map has another map as its base and does not know its offset in the file.
    """
    # The map of a file without a name has none either.
    if not (isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename):
        return array
    return MappedFile(str(array.filename), array.offset, array.shape, array.dtype.str)
