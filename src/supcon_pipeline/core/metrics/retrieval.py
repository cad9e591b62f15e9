"""Retrieval metrics, exact for every k: among references, in a gallery, or of a set among itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.metrics.ranking import RankSums, Relation, Similarities, rank_positives
from supcon_pipeline.core.metrics.similarities import TILE_SIZE, CosineSimilarities
from supcon_pipeline.core.vectors import require_labels, require_rows

RETRIEVAL_METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")


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
    tile_size: int | None = None,
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
        tile_size: similarities held at once; if not given, as many as suit the device.

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

    similarities = CosineSimilarities(queries, references)
    relation = Relation((query_labels, reference_labels))
    return _scored_values(rows, similarities, relation, ks, tile_size)[2]


def search_values(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    query_rows: Int[np.ndarray, " q"],
    gallery_rows: Int[np.ndarray, " m"],
    ks: Sequence[int] = (1,),
    groups: Int[np.ndarray, " n"] | None = None,
    copies: Int[np.ndarray, " n"] | None = None,
    similarities: Similarities | None = None,
    tile_size: int | None = None,
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
        tile_size: similarities held at once; if not given, as many as suit the device.

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
    similarities = similarities or CosineSimilarities(embeddings, np.asarray(embeddings)[gallery_rows])
    rows, num_searched, values = _scored_values(query_rows, similarities, relation, ks, tile_size)
    for k in ks:
        precision = values.pop(f"precision_at_{k}", None)
        if precision is not None and k <= num_searched:
            # The first positive ranks at most k where its reciprocal rank is at least 1 / k, rounded alike.
            values[f"recall_at_{k}"] = (values["mean_reciprocal_rank"] >= 1 / k).astype(float)
            values[f"precision_at_{k}"] = precision
    return SearchValues(rows, values)


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
    return Relation(
        (classes, classes[gallery_rows]), tuple((numbers, numbers[gallery_rows]) for numbers in apart)
    )


def _codes(numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The numbers counted from 0, in order."""
    codes: np.ndarray = np.unique(np.asarray(numbers), return_inverse=True)[1]
    return codes


def _scored_values(
    query_rows: Int[np.ndarray, " q"],
    similarities: Similarities,
    relation: Relation,
    ks: Sequence[int],
    tile_size: int | None,
) -> tuple[Int[np.ndarray, " scored"], int, dict[str, Float[np.ndarray, " scored"]]]:
    """The queries that have a positive, the least number of references one of them searches, and the metrics.

    Raises:
        ValueError: if no query has a positive.
    """
    rank, num_rows = _ranker(similarities, relation, ks)
    if tile_size:
        num_rows = max(1, tile_size // relation.num_references)
    starts = range(0, len(query_rows), num_rows)
    tiles = [tile for start in starts for tile in rank(query_rows[start : start + num_rows])]
    if not tiles:
        raise ValueError("query_rows must hold a query with another image of its class to find, got none")
    metrics = [_metrics(tile) for tile in tiles]
    values = {name: np.concatenate([part[name] for part in metrics]) for name in metrics[0]}
    rows = np.concatenate([tile.rows for tile in tiles])
    return rows, min(tile.num_searched for tile in tiles), values


def _ranker(
    similarities: Similarities, relation: Relation, ks: Sequence[int]
) -> tuple[Callable[[Int[np.ndarray, " q"]], list[RankSums]], int]:
    """What ranks a tile of queries, on the GPU if there is one, and how many queries make a tile."""
    from supcon_pipeline.core.device import find_gpu
    from supcon_pipeline.core.metrics.device_ranking import DeviceRanker

    if gpu := find_gpu():
        ranker = DeviceRanker(similarities, relation, ks, gpu)
        return ranker, ranker.num_rows
    rank = partial(rank_positives, similarities=similarities, relation=relation, ks=ks)
    return rank, max(1, TILE_SIZE // relation.num_references)


def _metrics(tile: RankSums) -> dict[str, Float[np.ndarray, " q"]]:
    """The metrics of each query of a tile."""
    return {
        **{f"precision_at_{k}": found / k for k, found in tile.found.items()},
        "r_precision": tile.found_within_r / tile.num_positives,
        "mean_average_precision_at_r": tile.precisions_within_r / tile.num_positives,
        "mean_average_precision": tile.precisions / tile.num_positives,
        "mean_reciprocal_rank": 1 / tile.first_ranks,
    }
