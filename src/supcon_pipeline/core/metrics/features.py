"""All metrics of one kind of features: retrieval, clustering, k-NN and silhouette, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from supcon_pipeline.core.metrics.clustering import clustering_metrics, silhouette
from supcon_pipeline.core.metrics.intervals import mean_intervals
from supcon_pipeline.core.metrics.retrieval import RETRIEVAL_METRICS, SearchValues, retrieval_values
from supcon_pipeline.core.search.knn import classify_by_prefixes
from supcon_pipeline.core.vectors import are_same


@dataclass(frozen=True)
class FeatureValues:
    """What a search among references gives for each query.

    Attributes:
        rows: the queries whose class some reference has, ascending.
        ranked: `retrieval_values` of these.
        voted: whether weighted k-NN is right, of every query, as `knn_accuracy` and `knn_accuracy_at_<k>`.
    """

    rows: Int[np.ndarray, " scored"]
    ranked: Mapping[str, Float[np.ndarray, " scored"]]
    voted: Mapping[str, Bool[np.ndarray, " n"]]


def feature_values(
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
    ks: Sequence[int],
    knn_k: int,
    knn_temperature: float,
) -> FeatureValues:
    """All metrics of features that are means over the queries, of each query.

    Args:
        queries: float, one row per image to score.
        query_labels: the class of each query.
        references: float, the rows to search; must not include the queries.
        reference_labels: the class of each reference.
        ks: values of k for precision@k and the accuracy of weighted k-NN.
        knn_k: neighbours that vote for `knn_accuracy`.
        knn_temperature: temperature of the votes, above 0.

    Raises:
        ValueError: as for the functions of the metrics.
    """
    labels = np.asarray(query_labels)
    ranked = retrieval_values(queries, labels, references, reference_labels, (1, *ks))
    votes = classify_by_prefixes(queries, references, reference_labels, (knn_k, *ks), knn_temperature)
    is_right = {k: predicted == labels for k, predicted in votes.items()}
    voted = {"knn_accuracy": is_right[knn_k], **{f"knn_accuracy_at_{k}": is_right[k] for k in ks}}
    return FeatureValues(np.flatnonzero(np.isin(labels, reference_labels)), ranked, voted)


def feature_metrics(
    values: FeatureValues,
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """All metrics of features that need no classifier.

    Args:
        values: of the queries.
        queries: float, one row per image to score.
        query_labels: the class of each query.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The means of all values, in [0, 1]; `clustering_metrics` and `silhouette`, unless the former are
        empty; 95 % `intervals` of all means over the queries.

    Raises:
        ValueError: as for the functions of the metrics.
    """
    means = {**values.ranked, **values.voted}
    return {
        **{name: float(column.mean()) for name, column in means.items()},
        **_class_structure(queries, np.asarray(query_labels)),
        "intervals": {
            **mean_intervals(values.ranked, num_resamples, seed),
            **mean_intervals(values.voted, num_resamples, seed),
        },
    }


def known_search_metrics(found: SearchValues, num_resamples: int, seed: int) -> dict[str, Any]:
    """The means of what a search among training images gives, under the names of `retrieval_values`.

    Args:
        found: of the queries.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The means, and their 95 % `intervals` over the queries.
    """
    names = [name for name in found.values if not name.startswith("recall_at_")]
    names.sort(key=lambda name: not name.startswith("precision_at_"))
    values = {name: found.values[name] for name in names}
    means = {name: float(column.mean()) for name, column in values.items()}
    return {**means, "intervals": mean_intervals(values, num_resamples, seed)}


def _class_structure(queries: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> dict[str, float]:
    """How well the classes form clusters; empty for one class or one image per class."""
    clustering = clustering_metrics(queries, labels)
    return {**clustering, "silhouette": silhouette(queries, labels)} if clustering else {}


def collapse_warnings(model: str, embeddings: Float[np.ndarray, "n dim"]) -> list[str]:
    """What there is to say of a model whose embeddings are all the same, or some of them zero.

    Args:
        model: its name in a sentence.
        embeddings: finite, one row per image.
    """
    num_zero = int((~embeddings.any(axis=1)).sum())
    if are_same(embeddings):
        which = "zero" if num_zero else "the same"
        return [
            f"The {model} has collapsed: the embeddings of all {len(embeddings):,} images are {which}, "
            "and its metrics are those of chance. Train with a lower learning rate or a longer warm-up."
        ]
    if num_zero:
        return [
            f"The {model} gives {num_zero:,} of {len(embeddings):,} images an embedding of zeros, "
            "which has no direction to compare."
        ]
    return []


def embedding_metrics(
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
) -> dict[str, float]:
    """How often the nearest references of a query, by cosine similarity, share its class.

    Args:
        queries: float, one row per image to score.
        query_labels: the class of each query.
        references: float, the rows to search; must not include the queries.
        reference_labels: the class of each reference.

    Returns:
        `precision_at_1`, `r_precision`, `mean_average_precision_at_r` in [0, 1], and `clustering_metrics` of
        the queries. Higher is better.

    Raises:
        ValueError: as for `retrieval_values`.
    """
    values = retrieval_values(queries, query_labels, references, reference_labels)
    metrics = {name: float(values[name].mean()) for name in RETRIEVAL_METRICS}
    return {**metrics, **clustering_metrics(queries, query_labels)}
