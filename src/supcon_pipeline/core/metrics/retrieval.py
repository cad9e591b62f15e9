"""Retrieval metrics, exact for every k."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from supcon_pipeline.core.vectors import require_labels, unit_rows

RETRIEVAL_METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
# Similarities held at once: 16 MB, and a few times that while they are sorted.
TILE_SIZE = 2**21
# Dot products of numbers with this many binary places need at most 52, which float64 holds exactly.
NUM_PLACES = 26
# Similarities are distinguished down to 2e-7, about the rounding error of float32 embeddings.
SIMILARITY_STEP = 2.0**-22


def retrieval_values(
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
    ks: Sequence[int] = (1,),
    tile_size: int = TILE_SIZE,
) -> dict[str, Float[np.ndarray, " scored"]]:
    """Retrieval metrics of each query by name; their means are the metrics.

    Exact: all references are ranked by cosine similarity to each query. In ties, other classes rank first, so
    that neither the order of references nor a collapsed encoder gains by them; similarities that differ only
    by rounding tie, and equal rows always do, in whatever order products are summed. Memory is bounded by one
    tile of queries, whatever the sizes of the classes.

    Args:
        queries: float, one row per image to score.
        query_labels: the class of each query.
        references: float, the rows to search; must not include the queries.
        reference_labels: the class of each reference.
        ks: values of k for `precision_at_<k>`, from 1 to the number of references.
        tile_size: similarities held at once.

    Returns:
        `precision_at_<k>`, `r_precision`, `mean_average_precision_at_r`, `mean_average_precision` (over all
        references) and `mean_reciprocal_rank` in [0, 1], higher is better, of each query whose class some
        reference has; other queries cannot be scored and are left out.

    Raises:
        ValueError: if rows and labels differ in number, a k is out of range, or no reference has the class
            of any query.
        InputError: if a row is not finite.

    Source:
        Musgrave et al. 2020, arXiv:2003.08505, section 3.2 for R-precision and MAP@R; Manning et al. 2008,
        Introduction to Information Retrieval, section 8.4 for average precision.
    """
    require_labels("queries", queries, query_labels)
    require_labels("references", references, reference_labels)
    wrong = [k for k in ks if not 1 <= k <= len(references)]
    if wrong:
        raise ValueError(f"k must be from 1 to the number of references ({len(references)}), got {wrong[0]}")
    query_labels, reference_labels = np.asarray(query_labels), np.asarray(reference_labels)
    is_scored = np.isin(query_labels, reference_labels)
    if not is_scored.any():
        raise ValueError("reference_labels must hold the class of a query, got none; search other references")
    rows, labels, columns = (
        _short_rows(queries)[is_scored],
        query_labels[is_scored],
        _short_rows(references).T,
    )
    num_rows = max(1, tile_size // len(references))
    tiles = [
        _tile_values(
            rows[start : start + num_rows] @ columns,
            labels[start : start + num_rows, None] == reference_labels,
            ks,
        )
        for start in range(0, len(rows), num_rows)
    ]
    return {name: np.concatenate([tile[name] for tile in tiles]) for name in tiles[0]}


def _tile_values(
    similarities: Float[np.ndarray, "q m"], is_positive: Bool[np.ndarray, "q m"], ks: Sequence[int]
) -> dict[str, Float[np.ndarray, " q"]]:
    """The metrics of a tile of queries from the ranks of their positives."""
    num_queries = len(similarities)
    num_positives = is_positive.sum(axis=1)
    queries, ranks = np.nonzero(_sort_by_similarity(similarities, is_positive))
    ranks += 1
    first = np.cumsum(num_positives) - num_positives
    precisions = (np.arange(1, len(ranks) + 1) - first[queries]) / ranks
    is_within_r = ranks <= num_positives[queries]

    def total(chosen: Bool[np.ndarray, " p"], weights: Any = None) -> Float[np.ndarray, " q"]:
        weights = None if weights is None else weights[chosen]
        return np.bincount(queries[chosen], weights, num_queries)

    return {
        **{f"precision_at_{k}": total(ranks <= k) / k for k in ks},
        "r_precision": total(is_within_r) / num_positives,
        "mean_average_precision_at_r": total(is_within_r, precisions) / num_positives,
        "mean_average_precision": np.bincount(queries, precisions, num_queries) / num_positives,
        "mean_reciprocal_rank": 1 / ranks[first],
    }


def _sort_by_similarity(
    similarities: Float[np.ndarray, "q m"], is_positive: Bool[np.ndarray, "q m"]
) -> Bool[np.ndarray, "q m"]:
    """Which references of each query are positives, most similar first and positives last in ties.

    Similarity and flag share one integer, because sorting values is several times faster than indices.
    """
    keys = np.rint(similarities * (-1 / SIMILARITY_STEP)).astype(np.int32)
    keys <<= 1
    keys |= is_positive
    keys.sort(axis=1)
    return (keys & 1).astype(bool)


def _short_rows(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
    """Rows of length 1, float64, with so few binary places that their dot products are exact.

    In float32, the product of the same two rows depends on their place in a matrix.
    """
    short = unit_rows(rows, np.float64)
    short *= 2**NUM_PLACES
    np.rint(short, out=short)
    short /= 2**NUM_PLACES
    return short
