import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from supcon_pipeline.core.metrics import accuracy, embedding_metrics


def at_degrees(*angles, length=1.0):
    return length * np.array([[np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))] for angle in angles])


def retrieval_by_loop(queries, query_labels, references, reference_labels):
    """Musgrave et al. 2020, section 3.2, one query and one rank at a time."""
    scores = []
    for query, label in zip(queries, query_labels, strict=True):
        cosines = [query @ r / np.linalg.norm(query) / np.linalg.norm(r) for r in references]
        ranked = [reference_labels[index] for index in np.argsort(cosines)[::-1]]
        num_positives = sum(other == label for other in reference_labels)
        hits, precisions = 0, 0.0
        for rank in range(1, num_positives + 1):
            if ranked[rank - 1] == label:
                hits += 1
                precisions += hits / rank
        scores.append([ranked[0] == label, hits / num_positives, precisions / num_positives])
    names = ["precision_at_1", "r_precision", "mean_average_precision_at_r"]
    return dict(zip(names, np.mean(scores, axis=0), strict=True))


@pytest.fixture
def embeddings(rng):
    """Overlapping classes of unequal size."""
    query_labels, reference_labels = np.repeat([0, 1, 2], [5, 9, 6]), np.repeat([0, 1, 2], [3, 11, 7])
    centers = rng.normal(size=(3, 4))
    queries = centers[query_labels] + rng.normal(size=(20, 4))
    references = centers[reference_labels] + rng.normal(size=(21, 4))
    return queries, query_labels, references, reference_labels


def test_retrieval_metrics_of_one_query_are_as_by_hand():
    # Ranked by angle the references are of class 0, 1, 0, 0: three positives, two of them in the first three.
    scores = embedding_metrics(
        at_degrees(0), [0], at_degrees(40, 10, 20, 30, length=3.0), [0, 0, 1, 0], has_clustering=False
    )
    expected = {"precision_at_1": 1, "r_precision": 2 / 3, "mean_average_precision_at_r": (1 + 2 / 3) / 3}
    assert scores == pytest.approx(expected)


def test_a_nearest_neighbour_of_another_class_is_a_miss_even_where_the_rest_are_hits():
    scores = embedding_metrics(at_degrees(0), [0], at_degrees(10, 20, 30), [1, 0, 0], has_clustering=False)
    expected = {"precision_at_1": 0, "r_precision": 1 / 2, "mean_average_precision_at_r": (1 / 2) / 2}
    assert scores == pytest.approx(expected)


def test_retrieval_metrics_are_those_of_a_slow_loop(embeddings):
    scores = embedding_metrics(*embeddings, has_clustering=False)
    assert scores == pytest.approx(retrieval_by_loop(*embeddings))
    # Looking at the nearest neighbour alone would make all three the same.
    assert len({round(score, 6) for score in scores.values()}) == 3


def test_clustering_metrics_compare_the_labels_with_the_clusters():
    # Three tight bundles, one image of which has the label of another bundle: any k-means finds the bundles.
    bundles = np.repeat([0, 1, 2], 6)
    queries = at_degrees(*(bundles * 120 + np.tile(np.arange(6) / 10, 3)))
    labels = bundles.copy()
    labels[0] = 1
    scores = embedding_metrics(queries, labels, queries, labels)
    assert scores["ami"] == pytest.approx(adjusted_mutual_info_score(labels, bundles))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, bundles))


def test_separated_classes_score_one():
    labels = np.repeat([0, 1, 2], 6)
    queries = at_degrees(*(labels * 120 + np.tile(np.arange(6) / 10, 3)))
    assert embedding_metrics(queries, labels, queries[::-1].copy(), labels[::-1].copy()) == pytest.approx(
        dict.fromkeys(["precision_at_1", "r_precision", "mean_average_precision_at_r", "ami", "nmi"], 1.0)
    )


def test_length_order_and_rotation_change_no_metric(rng, embeddings):
    queries, query_labels, references, reference_labels = embeddings
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    lengths = rng.uniform(0.1, 10, (20, 1))
    order, reference_order = rng.permutation(20), rng.permutation(21)
    changed = embedding_metrics(
        (queries * lengths @ rotation)[order],
        query_labels[order],
        (references @ rotation)[reference_order],
        reference_labels[reference_order],
        has_clustering=False,
    )
    assert changed == pytest.approx(embedding_metrics(*embeddings, has_clustering=False))


def test_the_same_embeddings_have_the_same_metrics_again(embeddings):
    first = embedding_metrics(*embeddings)
    embedding_metrics(embeddings[0][:6], embeddings[1][:6], *embeddings[2:])
    assert embedding_metrics(*embeddings) == first


def test_embeddings_without_a_label_each_are_refused(embeddings):
    queries, query_labels, references, reference_labels = embeddings
    with pytest.raises(ValueError, match="same length"):
        embedding_metrics(queries, query_labels[:-1], references, reference_labels)
    with pytest.raises(ValueError, match="same length"):
        embedding_metrics(queries, query_labels, references, reference_labels[:-1])


def test_accuracy_is_the_share_that_is_right():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 2])) == 0.75


def test_accuracy_is_that_of_a_slow_loop_in_any_order(rng):
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    share = sum(label == guess for label, guess in zip(labels, predicted, strict=True)) / 50
    order = rng.permutation(50)
    assert accuracy(labels, predicted) == accuracy(labels[order], predicted[order]) == pytest.approx(share)


@pytest.mark.parametrize("num_predicted", [2, 1])
def test_accuracy_of_fewer_predictions_than_labels_is_refused(num_predicted):
    with pytest.raises(ValueError, match=r"shapes|predicted"):
        accuracy(np.array([1, 2, 1]), np.array([1, 2])[:num_predicted])
