import numpy as np
import pytest
from tests.core.metrics.angles import retrieval_by_loop

from supcon_pipeline.core.metrics.features import (
    collapse_warnings,
    embedding_metrics,
    feature_metrics,
    feature_values,
)
from supcon_pipeline.core.search.knn import knn_probabilities
from supcon_pipeline.core.search.neighbours import search_neighbours


@pytest.fixture
def features(rng):
    query_labels, reference_labels = np.repeat([0, 1, 2], 10), np.repeat([0, 1, 2], [3, 11, 7])
    centers = rng.normal(size=(3, 4))
    queries = centers[query_labels] + rng.normal(size=(30, 4))
    return queries, query_labels, centers[reference_labels] + rng.normal(size=(21, 4)), reference_labels


def score(features, ks, num_resamples=10):
    values = feature_values(*features, ks, 3, 0.1)
    return feature_metrics(values, *features[:2], num_resamples, seed=0)


def test_features_are_scored_as_in_training_and_by_each_number_of_neighbours(features):
    scores = score(features, (1, 5))
    trained = embedding_metrics(*features)
    assert {name: scores[name] for name in trained} == trained
    for name, k in (("knn_accuracy", 3), ("knn_accuracy_at_1", 1), ("knn_accuracy_at_5", 5)):
        similarities, indices = search_neighbours(features[0], features[2], k)
        probabilities = knn_probabilities(similarities, features[3][indices], 3, 0.1)
        assert scores[name] == pytest.approx(np.mean(probabilities.argmax(axis=1) == features[1]))
    assert scores["knn_accuracy_at_1"] == pytest.approx(scores["precision_at_1"])


def test_every_mean_over_the_queries_lies_in_its_interval(features):
    scores = score(features, (1, 5), num_resamples=200)
    intervals = scores.pop("intervals")
    assert scores.keys() - intervals.keys() == {"ami", "nmi", "silhouette"}
    assert all(low <= scores[name] <= high for name, (low, high) in intervals.items())


@pytest.mark.parametrize("chosen", [np.arange(10, 20), np.array([0, 10, 20])])
def test_queries_of_one_class_or_one_of_each_are_scored_without_what_compares_classes(features, chosen):
    queries, labels, *references = features
    scores = score((queries[chosen], labels[chosen], *references), (1, 5))
    everything = score(features, (1, 5))
    assert everything.keys() - scores.keys() == {"ami", "nmi", "silhouette"}
    expected = embedding_metrics(queries[chosen], labels[chosen], *references)
    assert {name: scores[name] for name in expected} == expected


def test_values_are_those_of_each_query_and_of_a_class_without_references_there_is_a_vote_alone(features):
    queries, labels, references, reference_labels = features
    known = reference_labels != 1
    values = feature_values(queries, labels, references[known], reference_labels[known], (1,), 3, 0.1)
    assert values.rows.tolist() == [*range(10), *range(20, 30)]
    assert all(len(column) == 20 for column in values.ranked.values())
    _, nearest = search_neighbours(queries, references[known], 1)
    is_right = reference_labels[known][nearest[:, 0]] == labels
    assert values.voted["knn_accuracy_at_1"].tolist() == is_right.tolist()
    assert values.ranked["precision_at_1"].tolist() == is_right[values.rows].tolist()


def test_more_neighbours_than_references_are_refused(features):
    with pytest.raises(ValueError, match="k must be from 1 to the number of references"):
        feature_values(*features, (1, 50), 3, 0.1)


def test_metrics_of_an_epoch_are_those_of_a_slow_loop(embeddings):
    expected = retrieval_by_loop(*embeddings)
    scores = {name: value for name, value in embedding_metrics(*embeddings).items() if name in expected}
    assert scores == pytest.approx({name: expected[name].mean() for name in scores})
    # Looking at the nearest neighbour alone would make all three the same.
    assert len({round(score, 6) for score in scores.values()}) == 3


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
    )
    assert changed == pytest.approx(embedding_metrics(*embeddings))


def test_the_same_embeddings_have_the_same_metrics_again(embeddings):
    first = embedding_metrics(*embeddings)
    embedding_metrics(embeddings[0][:6], embeddings[1][:6], *embeddings[2:])
    assert embedding_metrics(*embeddings) == first


def test_a_model_that_has_collapsed_is_told_of_and_another_is_not(rng):
    rows = rng.normal(size=(40, 4))
    assert collapse_warnings("encoder", rows) == []
    (same,), (zero,) = (collapse_warnings("encoder", np.full((40, 4), value)) for value in (2.0, 0.0))
    assert same.startswith("The encoder has collapsed: the embeddings of all 40 images are the same, and its")
    assert zero.startswith(
        "The encoder has collapsed: the embeddings of all 40 images are zero, and its metr"
    )
    rows[:3] = 0
    (few,) = collapse_warnings("baseline", rows)
    assert few.startswith("The baseline gives 3 of 40 images an embedding of zeros,")
