"""Query expansion: a query is replaced by a mean of itself and what it finds."""

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.search.neighbours import search_neighbours
from supcon_pipeline.core.vectors import require_rows, unit_rows


def expand_queries(
    embeddings: Float[np.ndarray, "n dim"],
    query_rows: Int[np.ndarray, " q"],
    gallery_rows: Int[np.ndarray, " m"],
    k: int,
    alpha: float = 3.0,
    copies: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "q dim"]:
    """Queries to search with instead: the sum of each and its `k` nearest, which weigh similarity ** alpha.

    Embeddings are scaled to length 1 before, and the sums after. A query finds neither itself nor its copies;
    similarities below 0 count as 0.

    Args:
        embeddings: float, one row per image.
        query_rows: indices of the queries.
        gallery_rows: indices of the rows that are searched; may be the queries, or hold some of them.
        k: neighbours that are added, at least 1; no more than every query can find.
        alpha: at least 0; 0 weighs all that is found like the query itself (average query expansion).
        copies: a number for each row, the same for images that are copies of one another.

    Returns:
        float32, one row per query.

    Raises:
        ValueError: if counts differ, a row, `k` or `alpha` is out of range, or the gallery may have no
            image for a query.
        InputError: if a row is not finite.

    Source:
        Radenovic et al. 2018, arXiv:1711.02512, for alpha; Chum et al. 2007, Total Recall, for the average.
    """
    embeddings = np.asarray(embeddings)
    query_rows, gallery_rows = np.asarray(query_rows), np.asarray(gallery_rows)
    require_rows("query_rows", query_rows, len(embeddings))
    require_rows("gallery_rows", gallery_rows, len(embeddings))
    if alpha < 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
    if copies is not None and len(copies) != len(embeddings):
        raise ValueError(f"copies must have one number per row ({len(embeddings)}), got {len(copies)}")
    numbers = np.arange(len(embeddings)) if copies is None else np.unique(copies, return_inverse=True)[1]
    most = int(np.bincount(numbers[gallery_rows], minlength=numbers.max() + 1)[numbers[query_rows]].max())
    if k < 1 or most >= len(gallery_rows):
        raise ValueError(
            f"k must be at least 1, and fewer than the {len(gallery_rows)} rows of the gallery be copies of "
            f"a query, got {k} and {most}"
        )
    k = min(k, len(gallery_rows) - most)
    similarities, found = search_neighbours(embeddings[query_rows], embeddings[gallery_rows], k + most)
    is_own = numbers[gallery_rows[found]] == numbers[query_rows, None]
    # What is a query's own is moved to the end, where as many are cut off.
    order = np.argsort(is_own, axis=1, kind="stable")[:, :k]
    weights = np.clip(np.take_along_axis(similarities, order, axis=1), 0, None) ** alpha
    neighbours = gallery_rows[np.take_along_axis(found, order, axis=1)]
    expanded = unit_rows(embeddings[query_rows])
    for place in range(k):
        expanded += weights[:, place, None] * unit_rows(embeddings[neighbours[:, place]])
    return unit_rows(expanded)
