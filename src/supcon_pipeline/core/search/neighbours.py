"""Nearest neighbours with faiss."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from supcon_pipeline.core.vectors import require_finite

# Numbers held at once: 128 MB as float32.
TILE_SIZE = 2**25


def search_neighbours(
    queries: Float[np.ndarray, "n dim"],
    references: Float[np.ndarray, "m dim"],
    k: int,
    metric: str = "cosine",
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """The `k` nearest references of each query, nearest first: similarities and indices.

    Args:
        queries: float32.
        references: float32.
        k: from 1 to the number of references.
        metric: `cosine`, or `euclidean`, whose similarity is the negative squared distance.

    Raises:
        ValueError: if `k` is out of range or the metric is unknown.
        InputError: if a row is not finite.
    """
    import faiss

    if not 1 <= k <= len(references):
        raise ValueError(f"k must be from 1 to the number of references ({len(references)}), got {k}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be cosine or euclidean, got {metric!r}")
    # A row of NaN has the neighbours -1, which as an index is the last reference.
    require_finite("queries", queries)
    require_finite("references", references)
    queries = np.array(queries, dtype=np.float32, order="C")
    references = np.array(references, dtype=np.float32, order="C")
    if metric == "cosine":
        faiss.normalize_L2(queries)
        faiss.normalize_L2(references)
        return faiss.knn(queries, references, k, metric=faiss.METRIC_INNER_PRODUCT)
    distances, indices = faiss.knn(queries, references, k, metric=faiss.METRIC_L2)
    return -distances, indices


def find_nearest(
    rows: Shaped[np.ndarray, "n dim"],
    query_rows: Int[np.ndarray, " q"],
    reference_rows: Int[np.ndarray, " m"],
    tile_size: int = TILE_SIZE,
    exclusions: Sequence[Int[np.ndarray, " n"]] = (),
) -> Int[np.ndarray, " q"]:
    """The reference nearest to each query by Euclidean distance, as an index into the rows.

    Memory is bounded by a tile of each, whatever the number of rows. Ties go to the first reference.

    Args:
        rows: of any type, may be memory-mapped.
        query_rows: indices of the queries.
        reference_rows: indices of the rows that are searched.
        tile_size: numbers per tile.
        exclusions: numbers for each row; a row that shares one of them with the query is not found.

    Raises:
        ValueError: if there is no reference, or none that a query may find.
        InputError: if a row is not finite.
    """
    if not len(reference_rows):
        raise ValueError("reference_rows must hold at least one row, got none")
    num_rows = max(1, tile_size // rows.shape[1])
    num_own = _most_shared(query_rows, reference_rows, exclusions)
    nearest = np.full(len(query_rows), -1)
    for start in range(0, len(query_rows), num_rows):
        tile = slice(start, start + num_rows)
        queries = rows[query_rows[tile]]
        best = np.full(len(queries), -np.inf)
        for first in range(0, len(reference_rows), num_rows):
            searched = reference_rows[first : first + num_rows]
            k = min(1 + num_own, len(searched))
            similarities, found = search_neighbours(queries, rows[searched], k, "euclidean")
            for numbers in exclusions:
                similarities[numbers[searched[found]] == numbers[query_rows[tile], None]] = -np.inf
            # The first of equal ones.
            chosen = similarities.argmax(axis=1)[:, None]
            highest = np.take_along_axis(similarities, chosen, axis=1)[:, 0]
            is_nearer = highest > best
            best[is_nearer] = highest[is_nearer]
            nearest[tile][is_nearer] = searched[np.take_along_axis(found, chosen, axis=1)[is_nearer, 0]]
    if (nearest < 0).any():
        raise ValueError("reference_rows must hold a row that each query may find, got none for some")
    return nearest


def _most_shared(
    query_rows: Int[np.ndarray, " q"],
    rows: Int[np.ndarray, " m"],
    exclusions: Sequence[Int[np.ndarray, " n"]],
) -> int:
    """As many of the rows as one of the queries cannot find, at most."""
    num_shared = np.zeros(len(query_rows), dtype=np.int64)
    for numbers in exclusions:
        found, counts = np.unique(numbers[rows], return_counts=True)
        places = np.searchsorted(found, numbers[query_rows]).clip(max=len(found) - 1)
        num_shared += np.where(found[places] == numbers[query_rows], counts[places], 0)
    return int(num_shared.max(initial=0))


def search_gallery(
    rows: Float[np.ndarray, "n dim"],
    query_rows: Int[np.ndarray, " q"],
    gallery_rows: Int[np.ndarray, " m"],
    k: int,
    exclusions: Sequence[Int[np.ndarray, " n"]],
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Cosine similarities and rows of the `k` nearest of a gallery, without what a query may not find.

    Args:
        rows: float32.
        query_rows: indices of the queries.
        gallery_rows: indices of the rows that are searched; may be the queries.
        k: at least 1; no more are found than every query may find.
        exclusions: numbers for each row; a row that shares one of them with the query is not found.

    Raises:
        ValueError: if `k` is out of range, or there may be a query that can find nothing.
        InputError: if a row is not finite.
    """
    num_own = _most_shared(query_rows, gallery_rows, exclusions)
    if k < 1 or num_own >= len(gallery_rows):
        raise ValueError(
            f"k must be at least 1, and fewer than the {len(gallery_rows)} rows of the gallery be left out, "
            f"got {k} and {num_own}"
        )
    k = min(k, len(gallery_rows) - num_own)
    similarities, found = search_neighbours(rows[query_rows], rows[gallery_rows], k + num_own)
    found = gallery_rows[found]
    # They are moved to the end, where as many neighbours are cut off.
    is_own = np.zeros(found.shape, dtype=bool)
    for numbers in exclusions:
        is_own |= numbers[found] == numbers[query_rows, None]
    order = np.argsort(is_own, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(found, order, axis=1)


def search_other_neighbours(
    rows: Float[np.ndarray, "n dim"],
    reference_rows: Int[np.ndarray, " m"],
    k: int,
    query_rows: Int[np.ndarray, " q"] | None = None,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Cosine similarities and indices of the `k` references nearest to each query, excluding itself.

    Args:
        rows: float32.
        reference_rows: indices of the rows that are searched.
        k: from 1 to one less than there are references.
        query_rows: indices of the queries; all rows if not given.

    Raises:
        ValueError: if `k` is out of range.
        InputError: if a row is not finite.
    """
    if not 1 <= k < len(reference_rows):
        raise ValueError(f"k must be from 1 to {len(reference_rows) - 1}, the other references, got {k}")
    everything = np.arange(len(rows))
    queries = everything if query_rows is None else query_rows
    return search_gallery(rows, queries, reference_rows, k, (everything,))
