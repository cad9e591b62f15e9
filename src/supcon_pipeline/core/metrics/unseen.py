"""Metrics of features on classes that training never saw: images searched among the others of their split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from supcon_pipeline.core.data.class_splits import Search
from supcon_pipeline.core.metrics.clustering import clustering_metrics, silhouette
from supcon_pipeline.core.metrics.intervals import class_intervals
from supcon_pipeline.core.metrics.retrieval import RETRIEVAL_METRICS, SearchValues, search_values
from supcon_pipeline.core.search.neighbours import find_nearest


def unseen_metrics(
    rows: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    copies: Int[np.ndarray, " n"],
    queries: Int[np.ndarray, " q"] | None = None,
) -> dict[str, float]:
    """How often the nearest others of a row, by cosine similarity, share its class.

    Args:
        rows: float, one per image.
        labels: the class of each.
        copies: a number for each, the same for duplicates, which do not find each other.
        queries: the rows that are searched for among all; all if not given.

    Returns:
        `precision_at_1`, `r_precision`, `mean_average_precision_at_r` in [0, 1], and `clustering_metrics`.
        Higher is better.

    Raises:
        ValueError: where no row has another of its class, or one is not finite.
    """
    everything = np.arange(len(rows))
    searched = everything if queries is None else queries
    values = search_values(rows, labels, searched, everything, (1,), copies=copies).values
    metrics = {name: float(values[name].mean()) for name in RETRIEVAL_METRICS}
    return {**metrics, **clustering_metrics(rows, labels)}


def unseen_values(
    rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"], search: Search, ks: Sequence[int]
) -> SearchValues:
    """What a search gives for each query.

    Args:
        rows: float, one per image.
        labels: the class of each.
        search: which rows are searched for, and among which.
        ks: values of k for recall@k; those above the number of rows to find are left out.

    Raises:
        ValueError: where no row has another of its class, or one is not finite.
    """
    return search_values(rows, labels, search.queries, search.gallery, ks, search.groups, search.copies)


def unseen_feature_metrics(
    values: SearchValues,
    rows: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    search: Search,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """All metrics of features on classes that nothing was trained on.

    Args:
        values: what the search gives for each query.
        rows: float, one per image.
        labels: the class of each.
        search: which rows are searched for, and among which.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The means of `recall_at_<k>` and of the other `search_values`; `clustering_metrics` and `silhouette`
        of all rows that are searched for or among; 95 % `intervals` of the means, over resamples of the
        classes: images of one class are not independent.
    """
    part = np.union1d(search.queries, search.gallery)
    clustering = clustering_metrics(rows[part], labels[part])
    structure = {**clustering, "silhouette": silhouette(rows[part], labels[part])} if clustering else {}
    return {**search_metrics(values, labels, num_resamples, seed), **structure}


def search_metrics(
    found: SearchValues, labels: Int[np.ndarray, " n"], num_resamples: int, seed: int
) -> dict[str, Any]:
    """The means of what a search gives, recall first, with intervals over classes.

    Args:
        found: of the queries.
        labels: the class of each row.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
    """
    # Precision@k says nothing of classes with fewer images. Recall is what is asked for first.
    names = [name for name in found.values if not name.startswith("precision_at_")]
    names.sort(key=lambda name: not name.startswith("recall_at_"))
    values = {name: found.values[name] for name in names}
    return {
        **{name: float(column.mean()) for name, column in values.items()},
        "intervals": class_intervals(values, labels[found.rows], num_resamples, seed),
    }


def unseen_pixel_metrics(
    pixels: Shaped[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    search: Search,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Recall@1 of raw pixels, by Euclidean distance.

    Args:
        pixels: of any type, may be memory-mapped.
        labels: the class of each row.
        search: which rows are searched for, and among which.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
    """
    queries = search.queries[has_matches(labels, search)]
    nearest = find_nearest(pixels, queries, search.gallery, exclusions=search.exclusions)
    is_right = labels[queries] == labels[nearest]
    intervals = class_intervals({"recall_at_1": is_right}, labels[queries], num_resamples, seed)
    return {"recall_at_1": float(is_right.mean()), "intervals": intervals}


def has_matches(labels: Int[np.ndarray, " n"], search: Search) -> Bool[np.ndarray, " q"]:
    """Which queries may find a row of their class; for the others, nothing right could be found."""
    by_label: dict[Any, list[int]] = {}
    for row in search.gallery.tolist():
        by_label.setdefault(labels[row], []).append(row)

    def has_match(query: int) -> bool:
        candidates = np.array(by_label.get(labels[query], []), dtype=np.int64)
        is_left_out = np.zeros(len(candidates), dtype=bool)
        for numbers in search.exclusions:
            is_left_out |= numbers[candidates] == numbers[query]
        return bool((~is_left_out).any())

    return np.array([has_match(query) for query in search.queries.tolist()], dtype=bool)
