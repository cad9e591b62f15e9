"""Metrics of clustering."""

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.vectors import require_labels, unit_rows


def clustering_metrics(rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> dict[str, float]:
    """AMI (up to 1) and NMI in [0, 1] between the labels and a k-means clustering into as many clusters.

    The rows are scaled to unit length first. Higher is better. With a single class, or one image per class,
    every clustering is right: there is nothing to measure, and the result is empty.

    Raises:
        ValueError: if there is not one label per row.
        InputError: if a row is not finite.

    Source:
        Vinh et al. 2010, JMLR 11, for AMI; Arthur and Vassilvitskii 2007, k-means++, for the initialisation.
    """
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    require_labels("rows", rows, labels)
    num_classes = len(np.unique(labels))
    if not 1 < num_classes < len(rows):
        return {}
    clusters = _kmeans_clusters(rows, num_classes)
    return {
        "ami": float(adjusted_mutual_info_score(labels, clusters)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
    }


def _kmeans_clusters(rows: Float[np.ndarray, "n dim"], num_clusters: int) -> Int[np.ndarray, " n"]:
    """The best of several clusterings: a single one would measure luck.

    Fewer runs for many clusters, which take longer and where single faults weigh less; above 1,000 clusters,
    k-means++ would take longer than the clustering.
    """
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    start = "k-means++" if num_clusters <= 1000 else "random"
    num_starts = min(max(50 // num_clusters, 1), 5)
    kmeans = KMeans(num_clusters, init=start, n_init=num_starts, max_iter=20, random_state=1234)
    with warnings.catch_warnings():
        # A collapsed encoder has fewer distinct rows than classes, which is what the metric should show.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # In float64, the order in which threads sum moves no row to another cluster.
        clusters: np.ndarray = kmeans.fit_predict(unit_rows(rows, np.float64))
    return clusters


def silhouette(rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> float:
    """Mean silhouette of the classes by cosine distance, in [-1, 1]; higher is better.

    Exact and without a matrix of distances: the mean cosine distance of a unit row to a class is one minus
    its product with the mean of that class's unit rows. An image alone in its class counts as 0.

    Raises:
        ValueError: if there are fewer than two classes, or not one label per row.

    Source:
        Rousseeuw 1987, J. Comput. Appl. Math. 20, equation 2.
    """
    require_labels("rows", rows, labels)
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels must be of at least two classes, got {len(classes)}")
    unit = unit_rows(rows).astype(np.float64)
    sums = np.zeros((len(classes), unit.shape[1]))
    np.add.at(sums, index, unit)
    products, positions = unit @ sums.T, np.arange(len(unit))
    own_sum = products[positions, index] - (unit * unit).sum(axis=1)
    within = 1 - own_sum / np.maximum(counts[index] - 1, 1)
    distances = 1 - products / counts
    distances[positions, index] = np.inf
    between = distances.min(axis=1)
    # 0 if both are 0: rows that all have the same direction have no silhouette.
    widths = (between - within) / np.maximum(np.maximum(within, between), 1e-12)
    return float(np.where(counts[index] > 1, widths, 0).mean())
