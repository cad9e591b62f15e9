"""Retrieval metrics, exact for every k: among references, in a gallery, or of a set among itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from supcon_pipeline.core.metrics.similarities import SIMILARITY_STEP, TILE_SIZE, short_rows
from supcon_pipeline.core.vectors import require_labels, require_rows

RETRIEVAL_METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
# An even number above every similarity in steps: ranks last, and is no positive.
_LAST = 2**24

# Which references of each of the given queries are positives, and which are left out.
Relation = Callable[[Int[np.ndarray, " q"]], tuple[Bool[np.ndarray, "q m"], Bool[np.ndarray, "q m"] | None]]


# The similarity in [-1, 1] of each of the given queries to each reference.
Similarities = Callable[[Int[np.ndarray, " q"]], Float[np.ndarray, "q m"]]


@dataclass(frozen=True)
class SearchValues:
    """Retrieval metrics of the queries that can be scored.

    Attributes:
        rows: those queries, as indices into the embeddings, in the order of `query_rows`.
        values: a value for each of them, by the name of the metric; higher is better.
    """

    rows: Int[np.ndarray, " scored"]
    values: dict[str, Float[np.ndarray, " scored"]]


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
    rows = np.flatnonzero(np.isin(query_labels, reference_labels))
    if not len(rows):
        raise ValueError("reference_labels must hold the class of a query, got none; search other references")

    def relate(tile: Int[np.ndarray, " q"]) -> tuple[Bool[np.ndarray, "q m"], None]:
        return query_labels[tile, None] == reference_labels, None

    similarities = _cosine_similarities(queries, references)
    return _scored_values(rows, similarities, relate, ks, max(1, tile_size // len(references)))[2]


def search_values(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    query_rows: Int[np.ndarray, " q"],
    gallery_rows: Int[np.ndarray, " m"],
    ks: Sequence[int] = (1,),
    groups: Int[np.ndarray, " n"] | None = None,
    copies: Int[np.ndarray, " n"] | None = None,
    similarities: Similarities | None = None,
    tile_size: int = TILE_SIZE,
) -> SearchValues:
    """Retrieval metrics of rows that search a gallery, or one another: of classes that training never saw.

    Exact as `retrieval_values`, ties included. Left out of the gallery of a query, so that they count neither
    as found nor as missed: itself, its copies of whatever class, and images of both its class and its group.

    Args:
        embeddings: float, one row per image.
        labels: the class of each row.
        query_rows: indices of the queries.
        gallery_rows: indices of the rows that are searched; may be the same (leave one out) or overlap.
        ks: values of k, at least 1; those above the number of rows that a query searches are left out.
        groups: a number for each row, such as its camera or shop.
        copies: a number for each row, the same for images that are copies of one another.
        similarities: gives those in [-1, 1] of given queries to all of the gallery, such as the method of a
            `Reranker`; the cosine similarities if not given.
        tile_size: similarities held at once.

    Returns:
        `recall_at_<k>` (1 if an image of the class is among the first k, else 0; its means over k are the
        curve known as CMC) and what `retrieval_values` returns, of each query to which an image of its class
        is left.

    Raises:
        ValueError: if counts differ, a k is below 1, a row is out of range, or no query can be scored.
        InputError: if a row is not finite.

    Source:
        As for `retrieval_values`; Song et al. 2016, arXiv:1511.06452, for recall@k of a set among itself;
        Zheng et al. 2015, Scalable Person Re-identification: A Benchmark, for leaving out what shares class
        and camera with the query ("junk"), as in Market-1501.
    """
    require_labels("embeddings", embeddings, labels)
    query_rows, gallery_rows = np.asarray(query_rows), np.asarray(gallery_rows)
    require_rows("query_rows", query_rows, len(embeddings))
    require_rows("gallery_rows", gallery_rows, len(embeddings))
    if min(ks, default=1) < 1:
        raise ValueError(f"k must be at least 1, got {min(ks)}")
    relation = _relation(labels, gallery_rows, groups, copies)
    similarities = similarities or _cosine_similarities(embeddings, np.asarray(embeddings)[gallery_rows])
    num_rows = max(1, tile_size // len(gallery_rows))
    rows, num_searched, values = _scored_values(query_rows, similarities, relation, ks, num_rows)
    for k in ks:
        precision = values.pop(f"precision_at_{k}", None)
        if precision is not None and k <= num_searched:
            # The first positive ranks at most k where its reciprocal rank is at least 1 / k, rounded alike.
            values[f"recall_at_{k}"] = (values["mean_reciprocal_rank"] >= 1 / k).astype(float)
            values[f"precision_at_{k}"] = precision
    return SearchValues(rows, values)


def _cosine_similarities(
    queries: Float[np.ndarray, "n dim"], references: Float[np.ndarray, "m dim"]
) -> Similarities:
    """What gives the exact cosine similarities of given queries, in memory that the next call uses again."""
    queries, columns = np.asarray(queries), short_rows(references).T
    # Taking a large block of new memory costs more than filling it.
    products = np.empty((0, columns.shape[1]))

    def similarities(rows: Int[np.ndarray, " q"]) -> Float[np.ndarray, "q m"]:
        nonlocal products
        if len(products) < len(rows):
            products = np.empty((len(rows), columns.shape[1]))
        return np.matmul(short_rows(queries[rows]), columns, out=products[: len(rows)])

    return similarities


def _relation(
    labels: Int[np.ndarray, " n"],
    gallery_rows: Int[np.ndarray, " m"],
    groups: Int[np.ndarray, " n"] | None,
    copies: Int[np.ndarray, " n"] | None,
) -> Relation:
    """Which of the gallery are positives of given rows, and which are left out.

    Raises:
        ValueError: if groups or copies differ in number from the labels.
    """
    for name, numbers in (("groups", groups), ("copies", copies)):
        if numbers is not None and len(numbers) != len(labels):
            raise ValueError(f"{name} must have one number per row ({len(labels)}), got {len(numbers)}")
    classes = _codes(labels)
    # Rows that share a number in any of these are left out of one another's gallery.
    apart = [_codes(np.arange(len(labels)) if copies is None else copies)]
    if groups is not None:
        numbers = _codes(groups)
        apart.append(_codes(classes * (numbers.max() + 1) + numbers))

    def relate(rows: Int[np.ndarray, " q"]) -> tuple[Bool[np.ndarray, "q m"], Bool[np.ndarray, "q m"]]:
        is_left_out = np.zeros((len(rows), len(gallery_rows)), dtype=bool)
        for codes in apart:
            is_left_out |= codes[rows, None] == codes[gallery_rows]
        return (classes[rows, None] == classes[gallery_rows]) & ~is_left_out, is_left_out

    return relate


def _codes(numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The numbers counted from 0, in order."""
    codes: np.ndarray = np.unique(np.asarray(numbers), return_inverse=True)[1]
    return codes


def _scored_values(
    query_rows: Int[np.ndarray, " q"],
    similarities: Similarities,
    relation: Relation,
    ks: Sequence[int],
    num_rows: int,
) -> tuple[Int[np.ndarray, " scored"], int, dict[str, Float[np.ndarray, " scored"]]]:
    """The queries that have a positive, the least number of references one of them searches, and the metrics.

    Raises:
        ValueError: if no query has a positive.
    """
    scored, searched, tiles = [], [], []
    for start in range(0, len(query_rows), num_rows):
        rows = query_rows[start : start + num_rows]
        is_positive, is_left_out = relation(rows)
        chosen = np.flatnonzero(is_positive.any(axis=1))
        if not len(chosen):
            continue
        if len(chosen) < len(rows):
            rows, is_positive = rows[chosen], is_positive[chosen]
            is_left_out = None if is_left_out is None else is_left_out[chosen]
        tiles.append(_tile_values(similarities(rows), is_positive, is_left_out, ks))
        scored.append(rows)
        most_left_out = 0 if is_left_out is None else int(is_left_out.sum(axis=1).max())
        searched.append(is_positive.shape[1] - most_left_out)
    if not tiles:
        raise ValueError("query_rows must hold a query with another image of its class to find, got none")
    values = {name: np.concatenate([tile[name] for tile in tiles]) for name in tiles[0]}
    return np.concatenate(scored), min(searched), values


def _tile_values(
    similarities: Float[np.ndarray, "q m"],
    is_positive: Bool[np.ndarray, "q m"],
    is_left_out: Bool[np.ndarray, "q m"] | None,
    ks: Sequence[int],
) -> dict[str, Float[np.ndarray, " q"]]:
    """The metrics of a tile of queries from the ranks of their positives."""
    num_queries, num_references = similarities.shape
    num_positives = is_positive.sum(axis=1)
    queries = np.repeat(np.arange(num_queries), num_positives)
    hits = _sort_by_similarity(similarities, is_positive, is_left_out)
    ranks = np.flatnonzero(hits) - queries * num_references + 1
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
        keys[is_left_out] = _LAST
    keys.sort(axis=1)
    keys &= 1
    return keys.astype(bool)
