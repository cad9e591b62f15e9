"""Where the positives of queries rank among references, one tile of queries at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from supcon_pipeline.core.metrics.similarities import SIMILARITY_STEP

# An even number above every similarity in steps: ranks last, and is no positive.
LAST = 2**24

# The similarity in [-1, 1] of each of the given queries to each reference.
Similarities = Callable[[Int[np.ndarray, " q"]], Float[np.ndarray, "q m"]]


@dataclass(frozen=True)
class Relation:
    """Which references are positives of a query, and which are left out.

    Attributes:
        classes: the class of each query and of each reference; those of one class are positives.
        apart: more numbers of each query and of each reference; those that share one are left out.
    """

    classes: tuple[Shaped[np.ndarray, " n"], Shaped[np.ndarray, " m"]]
    apart: tuple[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]], ...] = ()

    @property
    def num_references(self) -> int:
        """How many references there are."""
        return len(self.classes[1])

    def masks(
        self, rows: Int[np.ndarray, " q"]
    ) -> tuple[Bool[np.ndarray, "q m"], Bool[np.ndarray, "q m"] | None]:
        """The positives of the queries in these rows, and what is left out for each of them."""
        classes, references = self.classes
        is_positive = classes[rows, None] == references
        if not self.apart:
            return is_positive, None
        is_left_out = np.zeros(is_positive.shape, dtype=bool)
        for numbers, others in self.apart:
            is_left_out |= numbers[rows, None] == others
        return is_positive & ~is_left_out, is_left_out


@dataclass(frozen=True)
class RankSums:
    """What the ranks of the positives of each query come to. Ranks count from 1.

    Attributes:
        rows: the queries; each has a positive.
        num_searched: the least number of references that one of them searches.
        num_positives: of each query.
        found: by k, the number of positives among the first k.
        found_within_r: the number of positives among the first `num_positives`.
        precisions: the sum of the precisions at the ranks of the positives.
        precisions_within_r: the part of that sum at ranks up to `num_positives`.
        first_ranks: the rank of the first positive.
    """

    rows: Int[np.ndarray, " q"]
    num_searched: int
    num_positives: Int[np.ndarray, " q"]
    found: dict[int, Int[np.ndarray, " q"]]
    found_within_r: Int[np.ndarray, " q"]
    precisions: Float[np.ndarray, " q"]
    precisions_within_r: Float[np.ndarray, " q"]
    first_ranks: Int[np.ndarray, " q"]


def rank_positives(
    rows: Int[np.ndarray, " q"], similarities: Similarities, relation: Relation, ks: Sequence[int]
) -> list[RankSums]:
    """What the ranks come to for the queries in these rows: one tile, or none if no query has a positive."""
    is_positive, is_left_out = relation.masks(rows)
    chosen = np.flatnonzero(is_positive.any(axis=1))
    if not len(chosen):
        return []
    if len(chosen) < len(rows):
        rows, is_positive = rows[chosen], is_positive[chosen]
        is_left_out = None if is_left_out is None else is_left_out[chosen]
    most_left_out = 0 if is_left_out is None else int(is_left_out.sum(axis=1).max())
    hits = sort_by_similarity(similarities(rows), is_positive, is_left_out)
    return [_sum_ranks(rows, hits, is_positive.sum(axis=1), hits.shape[1] - most_left_out, ks)]


def _sum_ranks(
    rows: Int[np.ndarray, " q"],
    hits: Bool[np.ndarray, "q m"],
    num_positives: Int[np.ndarray, " q"],
    num_searched: int,
    ks: Sequence[int],
) -> RankSums:
    queries = np.repeat(np.arange(len(rows)), num_positives)
    ranks = np.flatnonzero(hits) - queries * hits.shape[1] + 1
    first = np.cumsum(num_positives) - num_positives
    precisions = (np.arange(1, len(ranks) + 1) - first[queries]) / ranks
    is_within_r = ranks <= num_positives[queries]
    within_r = queries[is_within_r]
    return RankSums(
        rows,
        num_searched,
        num_positives,
        found={k: np.bincount(queries[ranks <= k], minlength=len(rows)) for k in ks},
        found_within_r=np.bincount(within_r, minlength=len(rows)),
        precisions=np.bincount(queries, precisions, len(rows)),
        precisions_within_r=np.bincount(within_r, precisions[is_within_r], len(rows)),
        first_ranks=ranks[first],
    )


def sort_by_similarity(
    similarities: Float[np.ndarray, "q m"],
    is_positive: Bool[np.ndarray, "q m"],
    is_left_out: Bool[np.ndarray, "q m"] | None = None,
) -> Bool[np.ndarray, "q m"]:
    """Which references of each query are positives, most similar first, positives last in ties.

    References that are left out come after all others. Similarity and flag share one integer, because sorting
    values is several times faster than indices.
    """
    keys = np.empty(similarities.shape, dtype=np.int32)
    np.rint(similarities * (-1 / SIMILARITY_STEP), out=keys, casting="unsafe")
    keys <<= 1
    keys |= is_positive
    if is_left_out is not None:
        keys[is_left_out] = LAST
    keys.sort(axis=1)
    keys &= 1
    return keys.astype(bool)
