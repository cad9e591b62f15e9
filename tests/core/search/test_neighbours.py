import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from supcon_pipeline.core.search.knn import (
    classify_by_prefixes,
    iterate_votes,
    knn_probabilities,
    neighbour_log_votes,
)
from supcon_pipeline.core.search.neighbours import find_nearest, search_neighbours, search_other_neighbours


def classify_by_neighbours(queries, references, labels, k, temperature, num_classes):
    similarities, indices = search_neighbours(queries, references, k)
    return knn_probabilities(similarities, labels[indices], num_classes, temperature)


@pytest.fixture
def queries(rng):
    return rng.normal(size=(7, 4)).astype(np.float32)


@pytest.fixture
def references(rng):
    return rng.normal(size=(12, 4)).astype(np.float32) * rng.uniform(0.1, 9, (12, 1)).astype(np.float32)


def test_neighbours_by_angle_and_by_distance_differ_as_by_hand():
    queries, references = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [10.0, 0.0], [1.0, 1.0]])
    similarities, indices = search_neighbours(queries, references, 3)
    assert indices.tolist() == [[1, 2, 0]]
    assert similarities[0] == pytest.approx([1, math.sqrt(0.5), 0], abs=1e-6)
    similarities, indices = search_neighbours(queries, references, 3, "euclidean")
    assert indices.tolist() == [[2, 0, 1]]
    assert similarities[0] == pytest.approx([-1, -2, -81])


def test_neighbours_by_cosine_are_those_of_a_slow_loop(queries, references):
    similarities, indices = search_neighbours(queries, references, 5)
    for row, query in enumerate(queries):
        cosines = [float(query @ r / math.sqrt(query @ query) / math.sqrt(r @ r)) for r in references]
        order = sorted(range(len(references)), key=lambda index: -cosines[index])[:5]
        assert indices[row].tolist() == order
        assert similarities[row] == pytest.approx([cosines[index] for index in order], abs=1e-6)


def test_neighbours_by_distance_are_those_of_scikit_learn(queries, references):
    similarities, indices = search_neighbours(queries, references, 5, "euclidean")
    distances, expected = NearestNeighbors(n_neighbors=5).fit(references).kneighbors(queries)
    assert np.array_equal(indices, expected)
    np.testing.assert_allclose(similarities, -(distances**2), rtol=1e-4)


def test_length_changes_no_neighbour_by_cosine(queries, references):
    similarities, indices = search_neighbours(queries, references, 12)
    scaled, scaled_indices = search_neighbours(queries * 50, references / 50, 12)
    assert np.array_equal(indices, scaled_indices)
    np.testing.assert_allclose(similarities, scaled, atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_search_leaves_its_arguments_as_they_were(queries, references, metric):
    before = queries.copy(), references.copy()
    search_neighbours(queries, references, 2, metric)
    assert np.array_equal(queries, before[0])
    assert np.array_equal(references, before[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_rows_of_other_types_and_layouts_work(rng, dtype):
    rows = np.asfortranarray(rng.integers(0, 256, (20, 6))).astype(dtype)
    _, indices = search_neighbours(rows[::2], rows, 1, "euclidean")
    assert indices[:, 0].tolist() == list(range(0, 20, 2))


@pytest.mark.parametrize(
    ("k", "metric", "message"),
    [
        (0, "cosine", r"k must be from 1 to the number of references \(12\), got 0"),
        (13, "cosine", r"k must be from 1 to the number of references \(12\), got 13"),
        (1, "manhattan", "metric must be cosine or euclidean, got 'manhattan'"),
    ],
)
def test_a_search_out_of_range_is_refused(queries, references, k, metric, message):
    with pytest.raises(ValueError, match=message):
        search_neighbours(queries, references, k, metric)


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


def test_other_neighbours_are_those_of_a_slow_loop_without_the_row_itself(rng):
    rows = rng.normal(size=(12, 4)).astype(np.float32)
    # A twin is no self: it stays, although it is as near as the row itself.
    rows[5] = rows[2]
    reference_rows = np.array([7, 2, 5, 0, 11, 3])
    similarities, neighbours = search_other_neighbours(rows, reference_rows, 3)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for row in range(12):
        cosines = {other: float(unit[row] @ unit[other]) for other in reference_rows if other != row}
        assert similarities[row] == pytest.approx(sorted(cosines.values(), reverse=True)[:3], abs=1e-6)
        assert [cosines[other] for other in neighbours[row]] == pytest.approx(similarities[row], abs=1e-6)
        assert len(set(neighbours[row])) == 3
    assert (neighbours[2, 0], neighbours[5, 0]) == (5, 2)


@pytest.mark.parametrize("k", [0, 3])
def test_more_other_neighbours_than_there_are_are_refused(queries, k):
    with pytest.raises(ValueError, match=f"k must be from 1 to 2, the other references, got {k}"):
        search_other_neighbours(queries, np.array([0, 1, 2]), k)


@pytest.mark.parametrize("tile_size", [1, 12, 17, 10_000])
def test_the_nearest_by_distance_is_that_of_a_slow_loop_whatever_the_tile(rng, tile_size):
    rows = rng.integers(0, 256, (40, 5), dtype=np.uint8)
    # Two references that are the same: the first counts.
    rows[30] = rows[3]
    order = rng.permutation(40)
    queries, references = order[:15], np.sort(order[15:])
    expected = [
        min(references, key=lambda other: ((rows[other].astype(int) - rows[query]) ** 2).sum())
        for query in queries
    ]
    assert find_nearest(rows, queries, references, tile_size).tolist() == expected


def test_the_nearest_of_equal_references_is_the_first_across_tiles():
    rows = np.ones((6, 3), np.uint8)
    assert find_nearest(rows, np.array([0, 5]), np.array([2, 3, 4]), 3).tolist() == [2, 2]


def test_the_nearest_among_nothing_is_refused():
    with pytest.raises(ValueError, match="reference_rows must hold at least one row, got none"):
        find_nearest(np.ones((2, 2)), np.array([0]), np.array([], int))


def test_pixels_of_any_number_are_searched_in_the_memory_of_a_tile(rng):
    import tracemalloc

    rows = rng.integers(0, 256, (4000, 512), dtype=np.uint8)
    tracemalloc.start()
    find_nearest(rows, np.arange(50), np.arange(50, 4000), tile_size=512 * 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As float32, all references would take 8 MB.
    assert peak < 1_000_000
