import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_mutual_info_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from tests.core.metrics.angles import at_degrees

from supcon_pipeline.core.metrics.clustering import clustering_metrics, silhouette
from supcon_pipeline.core.metrics.features import embedding_metrics
from supcon_pipeline.core.vectors import unit_rows


def test_clustering_metrics_compare_the_labels_with_the_clusters():
    # Three tight bundles, one image of which has the label of another bundle: any k-means finds the bundles.
    bundles = np.repeat([0, 1, 2], 6)
    queries = at_degrees(*(bundles * 120 + np.tile(np.arange(6) / 10, 3)))
    labels = bundles.copy()
    labels[0] = 1
    scores = embedding_metrics(queries, labels, queries, labels)
    assert scores["ami"] == pytest.approx(adjusted_mutual_info_score(labels, bundles))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, bundles))


@pytest.mark.parametrize("seed", range(5))
def test_clusters_of_ten_bundles_are_those_of_many_starts_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 400)
    rows = unit_rows(rng.normal(size=(10, 64))[labels] + 0.5 * rng.normal(size=(400, 64)))
    expected = KMeans(10, n_init=20, random_state=seed).fit_predict(rows)
    scores = clustering_metrics(rows, labels)
    assert scores["ami"] == pytest.approx(adjusted_mutual_info_score(labels, expected))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, expected))


def test_rows_that_are_all_the_same_have_no_clusters_to_agree_with():
    assert clustering_metrics(np.ones((6, 3)), [0, 0, 1, 1, 2, 2])["ami"] == pytest.approx(0)


def test_nearly_as_many_classes_as_rows_are_clustered():
    rows = np.eye(1101, dtype=np.float32)
    rows[1100] = rows[0]
    labels = np.append(np.arange(1100), 0)
    assert clustering_metrics(rows, labels) == pytest.approx({"ami": 1, "nmi": 1})


@pytest.mark.parametrize("labels", [[4, 4, 4, 4], [3, 1, 2, 0]])
def test_of_one_class_or_one_image_in_each_no_clustering_is_better_than_another(labels, rng):
    queries = rng.normal(size=(4, 3))
    assert clustering_metrics(queries, labels) == {}
    assert set(embedding_metrics(queries, labels, queries, labels)) == {
        "precision_at_1",
        "r_precision",
        "mean_average_precision_at_r",
    }


def test_the_silhouette_of_three_images_is_as_by_hand():
    # Two at right angles in one class, the third opposite to the first and alone in its class.
    expected = [(2 - 1) / 2, (1 - 1) / 1, 0]
    assert silhouette(at_degrees(0, 90, 180), [0, 0, 1]) == pytest.approx(np.mean(expected))


def test_the_silhouette_is_that_of_scikit_learn(embeddings):
    queries, query_labels, _, _ = embeddings
    labels = np.append(query_labels[:-1], 7)
    expected = silhouette_score(queries, labels, metric="cosine")
    assert silhouette(queries, labels) == pytest.approx(expected, abs=1e-6)
    assert silhouette(3 * queries[::-1], 5 - labels[::-1]) == pytest.approx(expected, abs=1e-6)


def test_the_silhouette_of_rows_that_are_all_the_same_is_zero():
    assert silhouette(np.ones((6, 3)), [0, 0, 0, 1, 1, 1]) == pytest.approx(0, abs=1e-3)


def test_the_silhouette_of_one_class_is_refused():
    with pytest.raises(ValueError, match="labels must be of at least two classes, got 1"):
        silhouette(at_degrees(0, 90), [4, 4])
