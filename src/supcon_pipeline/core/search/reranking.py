"""Re-ranking by reciprocal neighbours: images that share their neighbours are more similar than they look."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.search.neighbours import search_other_neighbours
from supcon_pipeline.core.vectors import require_rows, unit_rows

# Products of pairs of rows computed at once.
_NUM_PAIRS = 2**15


class Reranker:
    """Similarities of queries to a gallery that also count the neighbours both have in common.

    Neighbours are looked for among queries and gallery together, so that the result for a query depends on
    the other queries, too. No matrix of all pairs is kept. Of equally near rows, the first are neighbours.

        N(p, k)      p and its k nearest
        R(p, k)      {g in N(p, k) : p in N(g, k)}                                      equation 2
        R*(p, k1)    R(p, k1), and R(q, k1 / 2) for each q in R(p, k1) with
                     |R(p, k1) and R(q, k1 / 2)| >= 2 / 3 |R(q, k1 / 2)|                equation 5
        V(p, g)      exp(-d(p, g)) if g in R*(p, k1), else 0                            equation 7
        V(p, .)      becomes its mean over p and its k2 - 1 nearest                     equation 11
        J(p, g)      1 - sum of min(V(p, .), V(g, .)) / sum of max(V(p, .), V(g, .))    equation 10
        d*(p, g)     (1 - weight) J(p, g) + weight d(p, g)                              equation 12

    Deviations: the distance d is 1 minus the cosine similarity, and the result is the similarity 1 - d*. A
    row is among its own neighbours, as in the code of the authors, from which the published results come.

    Source:
        Zhong et al. 2017, arXiv:1701.08398, section 3.
    """

    def __init__(
        self,
        embeddings: Float[np.ndarray, "n dim"],
        query_rows: Int[np.ndarray, " q"],
        gallery_rows: Int[np.ndarray, " m"],
        k1: int = 20,
        k2: int = 6,
        weight: float = 0.3,
    ) -> None:
        """Find the neighbours.

        Args:
            embeddings: float, one row per image.
            query_rows: indices of the queries.
            gallery_rows: indices of the rows that are searched; may be the queries, or hold some of them.
            k1: neighbours that may be reciprocal, from 2 to one less than there are queries and gallery.
            k2: rows whose neighbourhoods are averaged, from 1 to `k1`; 1 averages none.
            weight: of the similarity before re-ranking, from 0 to 1; 1 leaves the order as it was.

        Raises:
            ValueError: if a row, `k1`, `k2` or the weight is out of range.
            InputError: if a row is not finite.
        """
        query_rows, gallery_rows = np.asarray(query_rows), np.asarray(gallery_rows)
        require_rows("query_rows", query_rows, len(embeddings))
        require_rows("gallery_rows", gallery_rows, len(embeddings))
        self._members = np.union1d(query_rows, gallery_rows)
        if not 2 <= k1 < len(self._members):
            raise ValueError(f"k1 must be from 2 to {len(self._members) - 1}, the other images, got {k1}")
        if not 1 <= k2 <= k1:
            raise ValueError(f"k2 must be from 1 to k1 ({k1}), got {k2}")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must be from 0 to 1, got {weight}")
        self._weight = weight
        self._rows = unit_rows(np.asarray(embeddings)[self._members], np.float64)
        self._gallery = np.searchsorted(self._members, gallery_rows)
        self._codes = _neighbourhoods(self._rows, k1, k2)
        self._totals = self._codes.sum(axis=1)
        # By column: which of the gallery have a given row in their neighbourhood.
        self._having = self._codes[self._gallery].tocsc()

    @classmethod
    def within(
        cls,
        embeddings: Float[np.ndarray, "n dim"],
        query_rows: Int[np.ndarray, " q"],
        gallery_rows: Int[np.ndarray, " m"],
        k1: int,
        k2: int,
        weight: float,
    ) -> Self:
        """A reranker with no more neighbours than there are.

        Raises:
            ValueError: as for the class; with fewer than three rows there is nothing to rank anew.
            InputError: if a row is not finite.
        """
        k1 = min(k1, len(np.union1d(query_rows, gallery_rows)) - 1)
        return cls(embeddings, query_rows, gallery_rows, k1, min(k2, k1), weight)

    def similarities(self, query_rows: Int[np.ndarray, " q"]) -> Float[np.ndarray, "q m"]:
        """The similarity of each of these queries to each row of the gallery, in [-1, 1], float64.

        Args:
            query_rows: some of the queries, as indices into the embeddings.

        Raises:
            ValueError: if one is neither among the queries nor in the gallery.
        """
        strangers = np.setdiff1d(query_rows, self._members)
        if len(strangers):
            raise ValueError(f"query_rows must be among those that were given, got {strangers[0]}")
        queries = np.searchsorted(self._members, query_rows)
        common = np.stack([self._common(query) for query in queries])
        totals = self._totals[queries, None] + self._totals[self._gallery]
        cosines = self._rows[queries] @ self._rows[self._gallery].T
        found: np.ndarray = (1 - self._weight) * common / (totals - common) + self._weight * cosines
        return found

    def _common(self, query: int) -> Float[np.ndarray, " m"]:
        """The sum of the lesser weights of a query and each row of the gallery."""
        own = slice(*self._codes.indptr[query : query + 2])
        columns, weights = self._codes.indices[own], self._codes.data[own]
        starts = self._having.indptr[columns]
        counts = self._having.indptr[columns + 1] - starts
        # The places of all entries of those columns, one column after the other.
        places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        lesser = np.minimum(self._having.data[places], np.repeat(weights, counts))
        return np.bincount(self._having.indices[places], lesser, len(self._gallery))


def _neighbourhoods(rows: Float[np.ndarray, "n dim"], k1: int, k2: int) -> Any:
    """The weights V of equation 11, as a sparse matrix by rows."""
    from scipy.sparse import csr_array

    _, nearest = search_other_neighbours(rows.astype(np.float32), np.arange(len(rows)), k1)
    near = {k: _membership(nearest[:, :k]) for k in (k1, k1 // 2, k2 - 1)}
    reciprocal, half = (near[k].multiply(near[k].T).tocsr() for k in (k1, k1 // 2))
    shared = (reciprocal @ half.T).multiply(reciprocal).tocoo()
    is_added = 3 * shared.data >= 2 * half.sum(axis=1)[shared.col]
    added = csr_array(
        (np.ones(is_added.sum(), dtype=np.int64), (shared.row[is_added], shared.col[is_added])), half.shape
    )
    expanded = (reciprocal + added @ half).tocoo()
    codes = np.exp(_cosines(rows, expanded.row, expanded.col) - 1)
    weights = csr_array((codes, (expanded.row, expanded.col)), expanded.shape)
    return (near[k2 - 1] @ weights / k2).tocsr()


def _membership(neighbours: Int[np.ndarray, "n k"]) -> Any:
    """A sparse matrix with a one where a row has a neighbour, and for the row itself."""
    from scipy.sparse import csr_array

    num_rows, k = neighbours.shape
    columns = np.concatenate([np.arange(num_rows)[:, None], neighbours], axis=1).ravel()
    starts = np.arange(num_rows + 1) * (k + 1)
    return csr_array((np.ones(len(columns), dtype=np.int64), columns, starts), (num_rows, num_rows))


def _cosines(
    rows: Float[np.ndarray, "n dim"], first: Int[np.ndarray, " p"], second: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """The products of pairs of rows."""
    cosines = np.empty(len(first))
    for start in range(0, len(first), _NUM_PAIRS):
        some = slice(start, start + _NUM_PAIRS)
        cosines[some] = np.einsum("ij,ij->i", rows[first[some]], rows[second[some]])
    return cosines
