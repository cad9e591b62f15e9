import math

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from supcon_pipeline.core.search.neighbours import (
    find_nearest,
    search_gallery,
    search_neighbours,
    search_other_neighbours,
)


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


def test_a_gallery_is_searched_without_what_a_query_may_not_find(rng):
    rows = rng.normal(size=(30, 8)).astype(np.float32)
    exclusions = (rng.integers(0, 12, 30), rng.integers(0, 15, 30))
    queries, gallery = np.arange(3, 30), np.arange(25)
    similarities, found = search_gallery(rows, queries, gallery, 4, exclusions)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for place, query in enumerate(queries):
        cosines = unit @ unit[query]
        others = [
            row
            for row in np.argsort(-cosines)
            if row < 25 and all(numbers[row] != numbers[query] for numbers in exclusions)
        ]
        assert found[place].tolist() == others[:4]
        assert similarities[place] == pytest.approx(cosines[others[:4]], abs=1e-6)


def test_no_more_are_found_than_every_query_may_find():
    rows, everything = np.eye(5, dtype=np.float32), np.arange(5)
    assert search_gallery(rows, everything, everything, 9, [np.array([0, 0, 0, 1, 2])])[1].shape == (5, 2)
    with pytest.raises(ValueError, match=r"fewer than the 5 rows of the gallery be left out, got 1 and 5"):
        search_gallery(rows, everything, everything, 1, [np.zeros(5, int)])


def test_a_search_without_exclusions_is_the_plain_one(queries, references):
    rows = np.concatenate([queries, references])
    places = np.arange(len(queries)), np.arange(len(queries), len(rows))
    similarities, found = search_gallery(rows, *places, 5, ())
    expected, indices = search_neighbours(queries, references, 5)
    assert np.array_equal(similarities, expected)
    assert np.array_equal(found, indices + len(queries))


@pytest.mark.parametrize("tile_size", [1, 24, 2**25])
def test_the_nearest_that_a_query_may_find_is_found_whatever_the_tiles(rng, tile_size):
    rows = rng.integers(0, 256, (40, 4), dtype=np.uint8)
    exclusions = (rng.integers(0, 15, 40), rng.integers(0, 20, 40))
    nearest = find_nearest(rows, np.arange(30), np.arange(40), tile_size, exclusions)
    for query in range(30):
        distances = np.square(rows.astype(float) - rows[query]).sum(axis=1)
        for numbers in exclusions:
            distances[numbers == numbers[query]] = np.inf
        assert distances[nearest[query]] == distances.min()


def test_a_query_that_may_find_nothing_is_refused(rng):
    rows = rng.normal(size=(3, 2))
    with pytest.raises(ValueError, match="that each query may find, got none for some"):
        find_nearest(rows, np.arange(3), np.arange(3), exclusions=[np.zeros(3, int)])


def test_what_the_gallery_shares_among_itself_alone_takes_nothing_from_other_queries(rng):
    rows = rng.normal(size=(8, 4)).astype(np.float32)
    groups, itself = np.array([7, 8, 1, 1, 1, 2, 3, 4]), np.arange(8)
    # The queries share nothing with the gallery, of which three images are of one group.
    _, found = search_gallery(rows, itself[:2], itself[2:], 10, (itself, groups))
    assert [sorted(row) for row in found.tolist()] == [[2, 3, 4, 5, 6, 7]] * 2
    _, found = search_gallery(rows, itself[:2], itself[7:], 1, (itself,))
    assert found.tolist() == [[7], [7]]
    assert find_nearest(rows, itself[:2], itself[7:], exclusions=(itself,)).tolist() == [7, 7]
