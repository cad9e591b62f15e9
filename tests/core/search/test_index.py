import numpy as np
import pytest

from supcon_pipeline.core.search.index import build_index, describe_index, recall, search_index

HNSW = {"num_links": 8, "ef_construction": 40, "ef_search": 64}


@pytest.fixture
def references(rng):
    return rng.normal(size=(200, 6)).astype(np.float32) * rng.uniform(0.1, 9, (200, 1)).astype(np.float32)


@pytest.fixture
def queries(rng):
    return rng.normal(size=(20, 6)).astype(np.float32)


def test_an_exact_index_finds_what_a_slow_loop_finds(references, queries):
    similarities, indices = search_index(build_index(references, 200, **HNSW), queries, 3)
    for row, query in enumerate(queries):
        cosines = [float(query @ r / np.linalg.norm(query) / np.linalg.norm(r)) for r in references]
        order = sorted(range(200), key=lambda index: -cosines[index])[:3]
        assert indices[row].tolist() == order
        assert similarities[row] == pytest.approx([cosines[index] for index in order], abs=1e-5)


def test_an_approximate_index_gives_the_cosines_of_what_it_finds_nearest_first(references, queries):
    index = build_index(references, 0, **HNSW)
    similarities, indices = search_index(index, queries, 10)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, references)]
    np.testing.assert_allclose(similarities, np.einsum("nd,nkd->nk", unit[0], unit[1][indices]), atol=1e-5)
    assert (np.diff(similarities, axis=1) <= 0).all()


@pytest.mark.parametrize(("hnsw_above", "kind"), [(200, "flat"), (199, "hnsw")])
def test_the_size_decides_the_kind_and_the_card_says_it(references, queries, hnsw_above, kind):
    card = describe_index(build_index(references, hnsw_above, **HNSW), references, queries, 10)
    assert (card["kind"], card["size"], card["dim"], card["num_queries"]) == (kind, 200, 6, 20)
    assert card["recall"] == 1 if kind == "flat" else 0.8 < card["recall"] <= 1
    assert card["bytes"] >= 200 * 6 * 4
    assert card["time_ratio"] > 0


@pytest.mark.parametrize("hnsw_above", [200, 0])
def test_an_index_of_other_rows_is_not_described(references, queries, hnsw_above, rng):
    index = build_index(references, hnsw_above, **HNSW)
    assert describe_index(index, 3 * references, queries, 10)["size"] == 200
    with pytest.raises(ValueError, match="index must hold these references, got another at row 0"):
        describe_index(index, references + rng.normal(size=(200, 6)), queries, 10)
    with pytest.raises(
        ValueError,
        match=r"index must have shape \(199, 6\), got \(200, 6\); type: kedro run --pipelines index",
    ):
        describe_index(index, references[:199], queries, 10)


@pytest.mark.parametrize("k", [0, 201])
def test_an_index_is_not_described_by_more_neighbours_than_it_holds(references, queries, k):
    index = build_index(references, 200, **HNSW)
    with pytest.raises(ValueError, match=rf"k must be from 1 to the number of training .* \(200\), got {k}"):
        describe_index(index, references, queries, k)


def test_recall_is_the_share_that_is_near_enough_as_by_hand():
    # Of the second query, the last that was found is farther than the last true one.
    truth, found = np.array([[0.9, 0.5], [0.8, 0.7]]), np.array([[0.9, 0.5], [0.7, 0.6]])
    assert recall(truth, found) == 0.75


def test_recall_does_not_look_at_the_order_nor_at_rounding(rng):
    truth = np.sort(rng.uniform(-1, 1, (4, 10)))[:, ::-1]
    found = truth - rng.choice([0, 0.1], (4, 10))
    expected = np.mean(
        [np.mean([value >= row[-1] for value in f]) for row, f in zip(truth, found, strict=True)]
    )
    assert recall(truth, found) == pytest.approx(expected)
    assert recall(truth, found[:, ::-1] - 1e-8) == pytest.approx(expected)


def test_recall_counts_one_of_equal_references_for_another(rng):
    rows = rng.normal(size=(2000, 16)).astype(np.float32)
    rows[1000:] = rows[:1000]
    index = build_index(rows, 0, 16, 80, 128)
    queries = rng.normal(size=(200, 16)).astype(np.float32)
    card = describe_index(index, rows, queries, 1)
    _, found = search_index(index, queries, 1)
    _, truth = search_index(build_index(rows, 2000, 16, 80, 128), queries, 1)
    # Half of the ones found are the copies of those that the exact search gives.
    assert np.mean(truth == found) < 0.9
    assert card["recall"] > 0.98


@pytest.mark.parametrize("k", [65, 199, 200])
def test_an_approximate_index_finds_as_many_as_are_asked_for(references, queries, k):
    index = build_index(references, 0, **HNSW)
    similarities, indices = search_index(index, queries, k)
    truth, _ = search_index(build_index(references, 200, **HNSW), queries, k)
    assert all(len(set(row)) == k and row.min() >= 0 for row in indices)
    np.testing.assert_allclose(similarities[:, : k // 2], truth[:, : k // 2], atol=1e-5)


def test_what_the_links_do_not_reach_is_found_by_an_exact_search(rng, queries):
    # Two bundles of equal rows: every link of a row leads to its equals.
    rows = rng.normal(size=(2, 6)).astype(np.float32).repeat(100, axis=0)
    index = build_index(rows, 0, **HNSW)
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (queries, rows)]
    similarities, indices = search_index(index, queries, 200)
    assert np.array_equal(np.sort(indices, axis=1), np.tile(np.arange(200), (20, 1)))
    np.testing.assert_allclose(similarities, np.sort(unit[0] @ unit[1].T)[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("k", [0, 201])
def test_a_search_out_of_range_is_refused(references, queries, k):
    index = build_index(references, 200, **HNSW)
    with pytest.raises(ValueError, match=r"k must be from 1 to the number of training images \(200\), got"):
        search_index(index, queries, k)


def test_queries_of_another_width_and_shapes_that_differ_are_refused(references, queries):
    with pytest.raises(ValueError, match="queries must have the 6 dimensions of the index, got 5"):
        search_index(build_index(references, 200, **HNSW), queries[:, :5], 1)
    with pytest.raises(ValueError, match="found must have the shape of the truth"):
        recall(np.zeros((2, 2)), np.zeros((2, 3)))


@pytest.mark.parametrize("hnsw_above", [200, 0])
def test_queries_that_are_not_finite_are_refused(references, queries, hnsw_above):
    queries[3, 2] = np.nan
    with pytest.raises(ValueError, match="queries must be finite, got NaN"):
        search_index(build_index(references, hnsw_above, **HNSW), queries, 3)
