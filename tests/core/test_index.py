import numpy as np
import pytest

from supcon_pipeline.core.index import build_index, describe_index, recall, search_index

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
    with pytest.raises(ValueError, match=r"index must hold \(199, 6\) numbers, got \(200, 6\)"):
        describe_index(index, references[:199], queries, 10)


def test_recall_is_the_share_that_was_found_as_by_hand():
    assert recall(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 9]])) == 0.75


def test_recall_does_not_look_at_the_order(rng):
    truth, found = rng.permutation(40).reshape(4, 10), rng.permutation(40).reshape(4, 10)
    assert recall(truth, found) == pytest.approx(recall(truth[:, ::-1], found))


@pytest.mark.parametrize("k", [0, 201])
def test_a_search_out_of_range_is_refused(references, queries, k):
    index = build_index(references, 200, **HNSW)
    with pytest.raises(ValueError, match=r"k must be from 1 to the number of training images \(200\), got"):
        search_index(index, queries, k)


def test_queries_of_another_width_and_shapes_that_differ_are_refused(references, queries):
    with pytest.raises(ValueError, match="queries must have the 6 dimensions of the index, got 5"):
        search_index(build_index(references, 200, **HNSW), queries[:, :5], 1)
    with pytest.raises(ValueError, match="found must have the shape of the truth"):
        recall(np.zeros((2, 2), int), np.zeros((2, 3), int))
