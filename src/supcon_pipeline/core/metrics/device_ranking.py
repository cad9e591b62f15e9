"""Ranking on a GPU, as `core.metrics.ranking` does on a CPU, and with its results.

Similarities are exact in float64, in whatever order products are summed; keys, ranks and counts are integers.
Precisions are summed in the order of ranks, one thread for each query: they equal those of a CPU to 1e-12 and
those of the next run to the bit, which `torch.bincount` with weights does not promise on a GPU.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32, Shaped
from torch import Tensor

from supcon_pipeline.core.device import free_memory, in_parts
from supcon_pipeline.core.metrics.ranking import LAST, RankSums, Relation, Similarities
from supcon_pipeline.core.metrics.similarities import (
    SIMILARITY_STEP,
    TILE_SIZE,
    CosineSimilarities,
    short_rows,
)

# Similarities ranked at once, if memory allows.
MAX_TILE_SIZE = 2**27
# Most bytes that a similarity takes while keys are sorted (about 60) or ranks are summed, and a margin.
_SIMILARITY_BYTES = 96
# A number of a query, as float64.
_NUMBER_BYTES = 8
# Numbers, as float64, of a block of similarities and of the references that it is the product with.
_BLOCK_SIZE = 2**24


class DeviceRanker:
    """Ranks all references for tiles of queries, as `rank_positives` does, on a device.

    References stay on the device if a quarter of its free memory holds them, and pass through it block by
    block otherwise. A tile for which memory does not last is ranked in two halves.

    Attributes:
        num_rows: queries for which half of the free memory lasts.
    """

    def __init__(
        self, similarities: Similarities, relation: Relation, ks: Sequence[int], device: torch.device
    ) -> None:
        self._similarities, self._ks, self._device = similarities, ks, device
        self._classes, *self._apart = (
            _pair_codes(pair, device) for pair in (relation.classes, *relation.apart)
        )
        # Similarities that are given are made in the memory of the host, and as many as it holds.
        size, self._dim = TILE_SIZE, 0
        if isinstance(similarities, CosineSimilarities):
            self._references = torch.from_numpy(similarities.references)
            if self._references.nbytes <= free_memory(device) // 4:
                self._references = self._references.to(device)
            size, self._dim = MAX_TILE_SIZE, self._references.shape[1]
        num_references = relation.num_references
        query_bytes = num_references * _SIMILARITY_BYTES + self._dim * _NUMBER_BYTES
        self.num_rows = max(1, min(size // num_references, free_memory(device) // 2 // query_bytes))

    def __call__(self, rows: Int[np.ndarray, " q"]) -> list[RankSums]:
        """As `rank_positives`, but that a tile may be ranked in parts."""
        return [tile for tile in in_parts(self._rank, rows) if tile]

    def _rank(self, rows: Int[np.ndarray, " q"]) -> RankSums | None:
        is_positive, is_left_out = self._masks(torch.tensor(rows, device=self._device))
        num_positives = is_positive.sum(dim=1)
        chosen = num_positives > 0
        if not chosen.any():
            return None
        if not chosen.all():
            rows, num_positives = rows[chosen.cpu().numpy()], num_positives[chosen]
            is_positive = is_positive[chosen]
            is_left_out = None if is_left_out is None else is_left_out[chosen]
        most_left_out = 0 if is_left_out is None else int(is_left_out.sum(dim=1).max())
        hits = self._sort(rows, is_positive, is_left_out)
        return _sum_ranks(rows, hits, num_positives, hits.shape[1] - most_left_out, self._ks)

    def _masks(self, rows: Int[Tensor, " q"]) -> tuple[Bool[Tensor, "q m"], Bool[Tensor, "q m"] | None]:
        """As `Relation.masks`."""
        classes, references = self._classes
        is_positive = classes[rows, None] == references
        if not self._apart:
            return is_positive, None
        is_left_out = torch.zeros_like(is_positive)
        for numbers, others in self._apart:
            is_left_out |= numbers[rows, None] == others
        is_positive &= ~is_left_out
        return is_positive, is_left_out

    def _sort(
        self,
        rows: Int[np.ndarray, " q"],
        is_positive: Bool[Tensor, "q m"],
        is_left_out: Bool[Tensor, "q m"] | None,
    ) -> Bool[Tensor, "q m"]:
        """As `sort_by_similarity`."""
        keys = self._steps(rows)
        keys <<= 1
        keys |= is_positive
        if is_left_out is not None:
            keys.masked_fill_(is_left_out, LAST)
        return (keys.sort(dim=1).values & 1).bool()

    def _steps(self, rows: Int[np.ndarray, " q"]) -> Int32[Tensor, "q m"]:
        """Negative similarities in steps."""
        num_references = len(self._classes[1])
        steps = torch.empty((len(rows), num_references), dtype=torch.int32, device=self._device)
        similarities = self._blocks(rows)
        width = max(1, _BLOCK_SIZE // (len(rows) + self._dim))
        for start in range(0, num_references, width):
            block = slice(start, start + width)
            steps[:, block] = similarities(block).mul_(-1 / SIMILARITY_STEP).round_()
        return steps

    def _blocks(self, rows: Int[np.ndarray, " q"]) -> Callable[[slice], Float[Tensor, "q block"]]:
        """What gives the similarities of these queries to some of the references."""
        if isinstance(self._similarities, CosineSimilarities):
            queries = torch.from_numpy(short_rows(self._similarities.queries[rows])).to(self._device)
            return lambda block: queries @ self._references[block].to(self._device).T
        found = self._similarities(rows)
        # A copy, because it is written to.
        return lambda block: torch.tensor(found[:, block], dtype=torch.float64, device=self._device)


def _pair_codes(
    pair: tuple[Shaped[np.ndarray, " n"], Shaped[np.ndarray, " m"]], device: torch.device
) -> tuple[Int32[Tensor, " n"], Int32[Tensor, " m"]]:
    """The numbers of queries and of references as codes."""
    codes = to_codes(np.concatenate(pair), device)
    queries, references = codes.split([len(numbers) for numbers in pair])
    return queries, references


def to_codes(numbers: Shaped[np.ndarray, " n"], device: torch.device) -> Int32[Tensor, " n"]:
    """Codes on a device that are equal where the numbers are, which may be of any type."""
    codes = np.unique(numbers, return_inverse=True)[1].astype(np.int32)
    return torch.from_numpy(codes).to(device)


def _sum_ranks(
    rows: Int[np.ndarray, " q"],
    hits: Bool[Tensor, "q m"],
    num_positives: Int[Tensor, " q"],
    num_searched: int,
    ks: Sequence[int],
) -> RankSums:
    queries, places = hits.nonzero(as_tuple=True)
    ranks = places + 1
    first = num_positives.cumsum(0) - num_positives
    found = torch.arange(1, len(ranks) + 1, device=hits.device) - first[queries]
    precisions = found.double() / ranks
    is_within_r = ranks <= num_positives[queries]

    def total(values: Shaped[Tensor, " p"]) -> Float[np.ndarray, " q"]:
        # Of a column, and not of a vector: those are summed in an order that depends on the device.
        column = values.double()[:, None]
        sums: np.ndarray = torch.segment_reduce(column, "sum", lengths=num_positives)[:, 0].cpu().numpy()
        return sums

    def count(is_counted: Bool[Tensor, " p"]) -> Int[np.ndarray, " q"]:
        return total(is_counted).astype(np.int64)

    return RankSums(
        rows,
        num_searched,
        num_positives.cpu().numpy(),
        found={k: count(ranks <= k) for k in ks},
        found_within_r=count(is_within_r),
        precisions=total(precisions),
        precisions_within_r=total(precisions * is_within_r),
        first_ranks=ranks[first].cpu().numpy(),
    )
