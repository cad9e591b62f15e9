"""Images of several parts of a source as one sequence."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from supcon_pipeline.core.data.images import ImageItem


class JoinedItems(Sequence[ImageItem]):
    """The images of several parts, one part after the other, read on access.

    Args:
        parts: sequences of entries.
        read: turns an entry into an image; a module-level function, so that worker processes can unpickle it.
    """

    def __init__(self, parts: Sequence[Any], read: Callable[[Any], ImageItem]):
        self.parts, self.read = parts, read
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @overload
    def __getitem__(self, index: int) -> ImageItem: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageItem]: ...

    def __getitem__(self, index: int | slice) -> ImageItem | Sequence[ImageItem]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self.ends, index, side="right"))
        first = int(self.ends[part - 1]) if part else 0
        return self.read(self.parts[part][index - first])
