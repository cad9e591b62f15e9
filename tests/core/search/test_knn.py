import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from supcon_pipeline.core.search.knn import (
    classify_by_prefixes,
    iterate_votes,
    knn_probabilities,
    neighbour_log_votes,
)
from supcon_pipeline.core.search.neighbours import search_neighbours


def classify_by_neighbours(queries, references, labels, k, temperature, num_classes):
    similarities, indices = search_neighbours(queries, references, k)
    return knn_probabilities(similarities, labels[indices], num_classes, temperature)


def test_two_neighbours_vote_by_their_similarity_as_by_hand():
    probabilities = knn_probabilities(np.array([[1.0, 0.0]]), np.array([[2, 0]]), 3, temperature=0.5)
    share = math.exp(2) / (math.exp(2) + 1)
    assert probabilities[0] == pytest.approx([1 - share, 0, share])


def test_probabilities_are_those_of_a_slow_loop(rng):
    similarities, labels = rng.uniform(-1, 1, (6, 5)), rng.integers(0, 3, (6, 5))
    probabilities = knn_probabilities(similarities, labels, 4, temperature=0.2)
    for row in range(6):
        votes = [0.0] * 4
        for similarity, label in zip(similarities[row], labels[row], strict=True):
            votes[label] += math.exp(similarity / 0.2)
        assert probabilities[row] == pytest.approx([vote / sum(votes) for vote in votes])


def test_the_order_of_the_neighbours_changes_no_probability(rng):
    similarities, labels = rng.uniform(-1, 1, (6, 5)), rng.integers(0, 3, (6, 5))
    order = rng.permutation(5)
    np.testing.assert_allclose(
        knn_probabilities(similarities, labels, 3),
        knn_probabilities(similarities[:, order], labels[:, order], 3),
    )


def test_a_temperature_near_zero_asks_the_nearest_alone():
    probabilities = knn_probabilities(np.array([[-0.9, -0.8]]), np.array([[0, 1]]), 2, temperature=1e-5)
    assert probabilities.tolist() == [[0, 1]]


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0, got"):
        knn_probabilities(np.ones((1, 1)), np.zeros((1, 1), int), 1, temperature)


@pytest.mark.parametrize("k", [1, 5])
def test_classification_by_neighbours_is_that_of_scikit_learn(rng, queries, references, k):
    labels = rng.permutation(np.arange(12) % 3)
    reference = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.3)
    )
    expected = reference.fit(references, labels).predict_proba(queries)
    probabilities = classify_by_neighbours(queries, references, labels, k, 0.3, num_classes=3)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_classification_by_more_neighbours_than_references_is_refused(queries, references):
    with pytest.raises(ValueError, match="k must be from 1 to the number of references"):
        classify_by_prefixes(queries, references, np.zeros(12, int), (1, 13), 0.1)


def test_classification_by_several_numbers_of_neighbours_is_that_by_each(rng, queries, references):
    labels = rng.permutation(np.arange(12) % 3)
    several = classify_by_prefixes(queries, references, labels, (5, 1, 12), temperature=0.3)
    assert list(several) == [5, 1, 12]
    for k, predicted in several.items():
        alone = classify_by_neighbours(queries, references, labels, k, 0.3, num_classes=3)
        assert np.array_equal(predicted, alone.argmax(axis=1))


@pytest.mark.parametrize("tile_size", [1, 9, 1000])
def test_votes_in_tiles_are_those_of_all(rng, tile_size):
    similarities, labels = rng.uniform(-1, 1, (6, 5)), rng.integers(0, 3, (6, 5))
    tiles = list(iterate_votes(similarities, labels, 3, 0.2, tile_size))
    assert np.array_equal(
        np.concatenate([votes for _, votes in tiles]), knn_probabilities(similarities, labels, 3, 0.2)
    )
    assert len(tiles) == {1: 6, 9: 2, 1000: 1}[tile_size]


def test_log_votes_are_those_of_the_probabilities_and_of_one_vote_that_all_classes_share(
    rng, queries, references
):
    labels = rng.permutation(np.arange(12) % 3)
    scores = neighbour_log_votes(queries, references, labels, 5, 0.3, num_classes=4)
    probabilities = classify_by_neighbours(queries, references, labels, 5, 0.3, num_classes=4)
    np.testing.assert_allclose(np.exp(scores), (5 * probabilities + 0.25) / 6, rtol=1e-5)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-5)
    assert np.array_equal(scores.argmax(axis=1), probabilities.argmax(axis=1))
    assert scores.dtype == np.float32


def test_several_numbers_of_neighbours_vote_in_the_memory_of_a_tile(rng):
    import tracemalloc

    rows, labels = rng.normal(size=(4000, 4)).astype(np.float32), rng.permutation(4000)
    tracemalloc.start()
    classify_by_prefixes(rows, rows, labels, (5, 20), 0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The votes of all would take 128 MB.
    assert peak < 80_000_000


def test_classification_is_as_wide_as_there_are_classes(queries, references):
    probabilities = classify_by_neighbours(queries, references, np.zeros(12, int), 3, 0.1, num_classes=4)
    assert probabilities.tolist() == [[1, 0, 0, 0]] * 7
