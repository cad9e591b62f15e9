"""Metrics of retrieval and clustering, and accuracy."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

RETRIEVAL_METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
CLUSTERING_METRICS = ("AMI", "NMI")
LOWER_IS_BETTER = frozenset({"log_loss"})


@cache
def _calculator(metrics: tuple[str, ...]) -> Any:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import FaissKMeans

    # Faiss warns of clusters below 39 images; a small validation split has such clusters.
    kmeans = FaissKMeans(niter=20, seed=1234, min_points_per_centroid=1)
    # k is the size of the largest class, so that every positive counts, not the nearest alone.
    return AccuracyCalculator(include=metrics, k="max_bin_count", kmeans_func=kmeans)


def embedding_metrics(
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
    has_clustering: bool = True,
) -> dict[str, float]:
    """How well the neighbours of the queries among the references share their class, by cosine similarity.

    Args:
        queries: float, one row per image to score.
        query_labels: the class of each query.
        references: float, what is searched; holds none of the queries.
        reference_labels: the class of each reference.
        has_clustering: whether to add AMI and NMI of a k-means clustering of the queries.

    Returns:
        `precision_at_1`, `r_precision`, `mean_average_precision_at_r` in [0, 1]; `ami` (up to 1) and `nmi`
        in [0, 1]. Up is better.

    Source:
        Musgrave et al. 2020, arXiv:2003.08505, section 3.2 for R-precision and MAP@R.
    """
    names = RETRIEVAL_METRICS + (CLUSTERING_METRICS if has_clustering else ())
    values = _calculator(names).get_accuracy(
        _unit_rows(queries),
        np.asarray(query_labels),
        _unit_rows(references),
        np.asarray(reference_labels),
        ref_includes_query=False,
    )
    return {name.lower(): float(values[name]) for name in names}


def _unit_rows(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
    rows = np.asarray(rows, dtype=np.float32)
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return scaled


def accuracy(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> float:
    """The share of labels that are predicted.

    Raises:
        ValueError: where the counts differ.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape:
        raise ValueError(f"predicted must be one per label {labels.shape}, got {predicted.shape}")
    return float(np.mean(labels == predicted))


def score(metrics: Mapping[str, float], metric: str) -> float:
    """The value of a metric, turned so that up is better.

    Raises:
        ValueError: where the metric is not among those measured.
    """
    if metric not in metrics:
        raise ValueError(f"checkpoints.metric must be one of {', '.join(metrics)}, got {metric!r}")
    return -metrics[metric] if metric in LOWER_IS_BETTER else metrics[metric]
