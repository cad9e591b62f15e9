"""Metrics of features on classes that training never saw: images searched among the others of their split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from supcon_pipeline.core.metrics.clustering import clustering_metrics, silhouette
from supcon_pipeline.core.metrics.intervals import class_intervals
from supcon_pipeline.core.metrics.retrieval import RETRIEVAL_METRICS, search_values
from supcon_pipeline.core.search.neighbours import find_nearest


def unseen_metrics(
    rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"], copies: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """How often the nearest others of a row, by cosine similarity, share its class.

    Args:
        rows: float, one per image.
        labels: the class of each.
        copies: a number for each, the same for duplicates, which do not find each other.

    Returns:
        `precision_at_1`, `r_precision`, `mean_average_precision_at_r` in [0, 1], and `clustering_metrics`.
        Higher is better.

    Raises:
        ValueError: where no row has another of its class, or one is not finite.
    """
    everything = np.arange(len(rows))
    values = search_values(rows, labels, everything, everything, (1,), copies=copies).values
    metrics = {name: float(values[name].mean()) for name in RETRIEVAL_METRICS}
    return {**metrics, **clustering_metrics(rows, labels)}


def unseen_feature_metrics(
    rows: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    copies: Int[np.ndarray, " n"],
    ks: Sequence[int],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """All metrics of features on classes that nothing was trained on.

    Args:
        rows: float, one per image.
        labels: the class of each.
        copies: a number for each, the same for duplicates, which do not find each other.
        ks: values of k for recall@k; those above the number of other rows are left out.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The means of `recall_at_<k>` and of the other `search_values`; `clustering_metrics` and `silhouette`;
        95 % `intervals` of the means, over resamples of the classes: images of one class are not independent.

    Raises:
        ValueError: where no row has another of its class, or one is not finite.
    """
    everything = np.arange(len(rows))
    found = search_values(rows, labels, everything, everything, ks, copies=copies)
    # Precision@k says nothing of classes with fewer images.
    values = {name: column for name, column in found.values.items() if not name.startswith("precision_at_")}
    clustering = clustering_metrics(rows, labels)
    return {
        **{name: float(column.mean()) for name, column in values.items()},
        **({**clustering, "silhouette": silhouette(rows, labels)} if clustering else {}),
        "intervals": class_intervals(values, labels[found.rows], num_resamples, seed),
    }


def unseen_pixel_metrics(
    pixels: Shaped[np.ndarray, "n dim"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " n"],
    copies: Int[np.ndarray, " n"],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Recall@1 of raw pixels, by Euclidean distance.

    Args:
        pixels: of any type, may be memory-mapped.
        rows: indices of the rows that are searched among one another.
        labels: the class of each row of pixels.
        copies: a number for each, the same for duplicates, which do not find each other.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
    """
    queries = rows[has_others(labels[rows], copies[rows])]
    is_right = labels[queries] == labels[find_nearest(pixels, queries, rows, copies=copies)]
    intervals = class_intervals({"recall_at_1": is_right}, labels[queries], num_resamples, seed)
    return {"recall_at_1": float(is_right.mean()), "intervals": intervals}


def has_others(labels: Int[np.ndarray, " n"], copies: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which rows have another of their class that is not their copy: the others cannot be found."""
    pairs = np.unique(np.stack([labels, copies]), axis=1)
    found, num_different = np.unique(pairs[0], return_counts=True)
    enough: np.ndarray = num_different[np.searchsorted(found, labels)] > 1
    return enough
