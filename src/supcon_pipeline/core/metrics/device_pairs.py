"""Counting pairs by similarity on a GPU, as `core.metrics.verification` does on a CPU: the same integers."""

from itertools import combinations_with_replacement
from math import isqrt

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from supcon_pipeline.core.device import free_memory, in_parts
from supcon_pipeline.core.metrics.device_ranking import to_codes
from supcon_pipeline.core.metrics.similarities import HALF_STEPS, SIMILARITY_STEP

# Similarities counted at once, if memory allows.
MAX_TILE_SIZE = 2**26
# Most bytes that a similarity takes while steps are sorted (about 60), and a margin.
_SIMILARITY_BYTES = 96


def count_on_device(
    short: Float[np.ndarray, "m dim"],
    classes: Int[np.ndarray, " m"],
    numbers: Int[np.ndarray, " m"],
    device: torch.device,
    tile_size: int | None = None,
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """The number of pairs at each step of similarity, and of those of one class.

    Rows pass through the device in blocks, each paired with itself and with those after it. For half of the
    free memory, a block is small enough; where less is left, it is halved.

    Args:
        short: short rows.
        classes: the class of each row.
        numbers: a number for each row; rows with the same one make no pair.
        device: counts.
        tile_size: similarities held at once; if not given, as many as suit the device.
    """
    counter = _PairCounter(short, classes, numbers, device)
    size = tile_size or min(MAX_TILE_SIZE, free_memory(device) // 2 // _SIMILARITY_BYTES)
    side = max(1, isqrt(size))
    blocks = np.split(np.arange(len(short)), range(side, len(short), side))
    for rows, others in combinations_with_replacement(blocks, 2):
        counter.add(rows, others)
    pairs, matches = counter.counts.cpu().numpy()
    return pairs, matches


class _PairCounter:
    """Adds up the pairs of blocks of rows.

    Attributes:
        counts: of pairs, and of those of one class, by step of similarity.
    """

    def __init__(
        self,
        short: Float[np.ndarray, "m dim"],
        classes: Int[np.ndarray, " m"],
        numbers: Int[np.ndarray, " m"],
        device: torch.device,
    ) -> None:
        self._short, self._device = short, device
        self._classes, self._numbers = to_codes(classes, device), to_codes(numbers, device)
        self.counts = torch.zeros((2, 2 * HALF_STEPS), dtype=torch.int64, device=device)

    def add(self, rows: Int[np.ndarray, " r"], others: Int[np.ndarray, " s"]) -> None:
        """Count the pairs of each of these rows with those of the others that come after it."""
        for found in in_parts(lambda part: self._count(part, others), rows):
            for counts, (steps, numbers) in zip(self.counts, found, strict=True):
                counts[steps.long()] += numbers

    def _count(
        self, rows: Int[np.ndarray, " r"], others: Int[np.ndarray, " s"]
    ) -> list[tuple[Int[Tensor, " u"], Int[Tensor, " u"]]]:
        """The steps of these pairs with the number of each, and those of the pairs of one class."""
        steps = self._send(self._short[rows] / SIMILARITY_STEP) @ self._send(self._short[others]).T
        steps = steps.round_().to(torch.int32).add_(HALF_STEPS)
        first, second = self._send(rows)[:, None], self._send(others)
        is_pair = (first < second) & (self._numbers[first] != self._numbers[second])
        is_match = is_pair & (self._classes[first] == self._classes[second])
        return [steps[chosen].unique(return_counts=True) for chosen in (is_pair, is_match)]

    def _send(self, numbers: Shaped[np.ndarray, "..."]) -> Tensor:
        return torch.from_numpy(numbers).to(self._device)
