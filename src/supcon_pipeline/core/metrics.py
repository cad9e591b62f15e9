"""Metrics of retrieval and clustering, and accuracy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

RETRIEVAL_METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
LOWER_IS_BETTER = frozenset({"log_loss"})
# Similarities of one tile of queries: 16 MB, and a few times that while they are sorted.
TILE_SIZE = 2**21
# Sums of products of such numbers have at most 52 binary places, which float64 holds: they are exact.
NUM_PLACES = 26
# Similarities are told apart to 2e-7, about what the rounding of float32 embeddings leaves of them.
SIMILARITY_STEP = 2.0**-22


def embedding_metrics(
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
) -> dict[str, float]:
    """How well the neighbours of the queries among the references share their class, by cosine similarity.

    Args:
        queries: float, one row per image to score.
        query_labels: the class of each query.
        references: float, what is searched; holds none of the queries.
        reference_labels: the class of each reference.

    Returns:
        `precision_at_1`, `r_precision`, `mean_average_precision_at_r` in [0, 1]; what `clustering_metrics`
        gives of the queries. Up is better.

    Raises:
        ValueError: as `retrieval_values` does.
    """
    values = retrieval_values(queries, query_labels, references, reference_labels)
    metrics = {name: float(values[name].mean()) for name in RETRIEVAL_METRICS}
    return {**metrics, **clustering_metrics(queries, query_labels)}


def retrieval_values(
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
    ks: Sequence[int] = (1,),
    tile_size: int = TILE_SIZE,
) -> dict[str, Float[np.ndarray, " scored"]]:
    """Retrieval metrics of each query by name; their means are the metrics.

    Exact: all references are ranked by cosine similarity to each query. Of equally similar references, those
    of other classes come first, so that neither their order nor a collapsed encoder can help; what differs by
    rounding alone is equal, and equal rows are, whichever way a product is added up. Memory is that of one
    tile of queries, whatever the sizes of the classes.

    Args:
        queries: float, one row per image to score.
        query_labels: the class of each query.
        references: float, what is searched; holds none of the queries.
        reference_labels: the class of each reference.
        ks: for which `precision_at_<k>` is given, from 1 to the number of references.
        tile_size: similarities held at once.

    Returns:
        `precision_at_<k>`, `r_precision`, `mean_average_precision_at_r`, `mean_average_precision` (over all
        references) and `mean_reciprocal_rank` in [0, 1], up is better, of each query whose class some
        reference has; the others have no such number and are left out.

    Raises:
        ValueError: where rows and labels differ in number, a row is not finite, a k is out of range, or no
            reference has the class of any query.

    Source:
        Musgrave et al. 2020, arXiv:2003.08505, section 3.2 for R-precision and MAP@R; Manning et al. 2008,
        Introduction to Information Retrieval, section 8.4 for average precision.
    """
    _require_labels("queries", queries, query_labels)
    _require_labels("references", references, reference_labels)
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
    """Which references of each query are positives, most similar first and positives last among equals.

    Similarity and flag share one integer, because sorting values is several times as fast as sorting indices.
    """
    keys = np.rint(similarities * (-1 / SIMILARITY_STEP)).astype(np.int32)
    keys <<= 1
    keys |= is_positive
    keys.sort(axis=1)
    return (keys & 1).astype(bool)


def _short_rows(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
    """Rows of length 1, float64, whose numbers have so few binary places that their products are exact.

    A product of the same two rows in float32 depends on where in a matrix they stand.
    """
    short = unit_rows(rows, np.float64)
    short *= 2**NUM_PLACES
    np.rint(short, out=short)
    short /= 2**NUM_PLACES
    return short


def clustering_metrics(rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> dict[str, float]:
    """AMI (up to 1) and NMI in [0, 1] between the labels and a k-means clustering into as many clusters.

    The rows are scaled to unit length first. Up is better. Of one class, or of one image in each, every
    clustering is right: there is nothing to measure, and neither is given.

    Source:
        Vinh et al. 2010, JMLR 11, for AMI; Arthur and Vassilvitskii 2007, k-means++, for the starts.
    """
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    num_classes = len(np.unique(labels))
    if not 1 < num_classes < len(rows):
        return {}
    clusters = _kmeans_clusters(rows, num_classes)
    return {
        "ami": float(adjusted_mutual_info_score(labels, clusters)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
    }


def _kmeans_clusters(rows: Float[np.ndarray, "n dim"], num_clusters: int) -> Int[np.ndarray, " n"]:
    """The best of some clusterings: one start alone measures luck.

    Fewer starts for many clusters, which take longer and whose faults weigh less; above 1,000 the search for
    good starts would take longer than the clustering.
    """
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    start = "k-means++" if num_clusters <= 1000 else "random"
    num_starts = min(max(50 // num_clusters, 1), 5)
    kmeans = KMeans(num_clusters, init=start, n_init=num_starts, max_iter=20, random_state=1234)
    with warnings.catch_warnings():
        # A collapsed encoder has fewer distinct rows than there are classes: that is what is to be seen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # In float64 the order in which threads add up moves no row to another cluster.
        clusters: np.ndarray = kmeans.fit_predict(unit_rows(rows, np.float64))
    return clusters


def silhouette(rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> float:
    """Mean silhouette of the classes by cosine distance, in [-1, 1]; up is better.

    Exact and without a matrix of distances: the mean cosine distance of a unit row to a class is one minus
    its product with the mean of that class's unit rows. An image alone in its class counts as zero.

    Raises:
        ValueError: where there are fewer than two classes, or not one label per row.

    Source:
        Rousseeuw 1987, J. Comput. Appl. Math. 20, equation 2.
    """
    _require_labels("rows", rows, labels)
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels must be of at least two classes, got {len(classes)}")
    unit = unit_rows(rows).astype(np.float64)
    sums = np.zeros((len(classes), unit.shape[1]))
    np.add.at(sums, index, unit)
    products, everyone = unit @ sums.T, np.arange(len(unit))
    own_sum = products[everyone, index] - (unit * unit).sum(axis=1)
    within = 1 - own_sum / np.maximum(counts[index] - 1, 1)
    distances = 1 - products / counts
    distances[everyone, index] = np.inf
    between = distances.min(axis=1)
    # Zero where both are: rows that all point the same way have no silhouette to speak of.
    widths = (between - within) / np.maximum(np.maximum(within, between), 1e-12)
    return float(np.where(counts[index] > 1, widths, 0).mean())


def unit_rows(rows: Float[np.ndarray, "n dim"], dtype: Any = np.float32) -> Float[np.ndarray, "n dim"]:
    """Rows of length 1, in C order; a row of zeros stays one."""
    rows = np.asarray(rows, dtype=dtype)
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(scaled)


def _require_labels(name: str, rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> None:
    if len(rows) != len(labels):
        raise ValueError(f"labels of the {name} must have the same length ({len(rows)}), got {len(labels)}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity; the encoder's training has gone wrong")


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
    """The value of a metric, turned so that up is better; what is no number is worse than any.

    Raises:
        ValueError: where the metric is not among those measured.
    """
    if metric not in metrics:
        raise ValueError(f"checkpoints.metric must be one of {', '.join(metrics)}, got {metric!r}")
    value = -metrics[metric] if metric in LOWER_IS_BETTER else metrics[metric]
    # NaN is neither above nor below anything: what sorts by it, or takes the largest, goes astray.
    return -math.inf if math.isnan(value) else value
