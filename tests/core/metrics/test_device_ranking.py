"""Ranking as on a GPU is ranking with numpy; where there is no GPU, the CPU stands in for it."""

import numpy as np
import pytest
import torch
from tests.core.metrics.angles import at_degrees

from supcon_pipeline.core.metrics import device_ranking
from supcon_pipeline.core.metrics.device_ranking import DeviceRanker
from supcon_pipeline.core.metrics.ranking import Relation
from supcon_pipeline.core.metrics.retrieval import retrieval_values, search_values
from supcon_pipeline.core.metrics.similarities import CosineSimilarities
from supcon_pipeline.core.search.reranking import Reranker

# Sums of precisions may be rounded differently; all else is made of integers.
SUMS = ("mean_average_precision", "mean_average_precision_at_r")


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        if name in SUMS:
            np.testing.assert_allclose(found[name], column, rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], column, err_msg=name, strict=True)


@pytest.fixture
def many(rng):
    """90 rows of 15 classes: some equal others or are copies of them, and three have a class of their own."""
    labels = rng.permutation(np.arange(90) % 15)
    labels[:3] = 100 + np.arange(3)
    embeddings = (rng.normal(size=(120, 5))[labels] + rng.normal(size=(90, 5))).astype(np.float32)
    copies = np.arange(90)
    copies[70:] = copies[:20]
    embeddings[70:] = embeddings[:20]
    embeddings[50:60] = 2 * embeddings[30:40]
    return embeddings, labels, rng.integers(0, 3, 90), copies


@pytest.mark.parametrize("tile_size", [None, 1, 50])
def test_every_metric_is_that_of_numpy(embeddings, both_ways, tile_size):
    assert_same(*both_ways(retrieval_values, *embeddings, ks=(1, 3, 7), tile_size=tile_size))


@pytest.mark.parametrize("tile_size", [None, 1, 400])
@pytest.mark.parametrize(
    ("query_rows", "gallery_rows"),
    [(np.arange(90), np.arange(90)), (np.arange(20, 90), np.arange(35)), (np.arange(40), np.arange(40, 90))],
)
def test_every_metric_of_a_search_is_that_of_numpy(many, both_ways, query_rows, gallery_rows, tile_size):
    embeddings, labels, groups, copies = many
    for kinds in ({}, {"groups": groups}, {"copies": copies}, {"groups": groups, "copies": copies}):
        search = (embeddings, labels, query_rows, gallery_rows, (1, 3, 10))
        found, expected = both_ways(search_values, *search, **kinds, tile_size=tile_size)
        assert found.rows.tolist() == expected.rows.tolist()
        assert_same(found.values, expected.values)


def test_wide_rows_with_many_ties_rank_as_with_numpy(rng, both_ways):
    rows = rng.normal(size=(60, 512)).astype(np.float32)
    references, queries = np.concatenate([rows, 3 * rows, rows]), rows[:20] + rows[20:40]
    search = (queries, np.arange(20) % 4, references, rng.integers(0, 4, 180))
    assert_same(*both_ways(retrieval_values, *search, ks=(1, 2, 3)))


def test_thousands_of_references_rank_as_with_numpy(rng, both_ways):
    """More than a GPU sorts by its way for short rows."""
    labels = rng.integers(0, 10, 6000)
    rows = (rng.normal(size=(10, 64))[labels] + 3 * rng.normal(size=(6000, 64))).astype(np.float32)
    rows[5500:] = rows[:500]
    search = (rows, labels, np.arange(0, 6000, 40), np.arange(6000), (1, 3, 1000))
    found, expected = both_ways(search_values, *search, copies=np.arange(6000) // 2)
    assert_same(found.values, expected.values)
    assert 0.1 < found.values["r_precision"].mean() < 0.9


def test_of_equally_similar_references_those_of_other_classes_come_first_on_a_device(both_ways):
    references = np.array([[1.0, 0], [2.0, 0], [4.0, 0], [0, 1.0], [0, -1.0]])
    found, _ = both_ways(retrieval_values, at_degrees(0), [0], references, np.array([0, 1, 0, 1, 0]))
    assert found["precision_at_1"] == 0
    assert found["mean_average_precision"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.float64, np.str_])
def test_labels_of_any_type_are_compared(embeddings, both_ways, dtype):
    queries, query_labels, references, reference_labels = embeddings
    labels = query_labels.astype(dtype), reference_labels.astype(dtype)
    assert_same(*both_ways(retrieval_values, queries, labels[0], references, labels[1]))


def test_similarities_of_a_reranker_rank_as_with_numpy(many, both_ways):
    embeddings, labels, _, copies = many
    rows = np.arange(90)
    reranker = Reranker(embeddings, rows, rows, k1=6, k2=3)
    search = (embeddings, labels, rows, rows, (1, 5))
    found, expected = both_ways(search_values, *search, copies=copies, similarities=reranker.similarities)
    assert_same(found.values, expected.values)


def test_similarities_that_may_not_be_written_to_are_ranked(many, both_ways):
    embeddings, labels = many[:2]
    similarities = np.float32(np.corrcoef(embeddings))
    similarities.setflags(write=False)
    search = (embeddings, labels, np.arange(90), np.arange(90))
    found, expected = both_ways(search_values, *search, similarities=similarities.__getitem__)
    assert_same(found.values, expected.values)


def test_where_memory_is_short_references_pass_through_the_device_in_blocks(many, both_ways, monkeypatch):
    monkeypatch.setattr(device_ranking, "_BLOCK_SIZE", 60)
    embeddings, labels = many[:2]
    search = (embeddings[:30], labels[:30], embeddings[30:], labels[30:])
    assert_same(*both_ways(retrieval_values, *search, memory=3000))


@pytest.mark.parametrize(("num_references", "dim"), [(5, 512), (1000, 4)])
def test_a_tile_takes_no_more_than_half_of_the_free_memory(monkeypatch, rng, num_references, dim):
    monkeypatch.setattr(device_ranking, "free_memory", lambda _: 10**6)
    rows = rng.normal(size=(num_references, dim))
    relation = Relation((np.arange(9), np.arange(num_references)))
    ranker = DeviceRanker(CosineSimilarities(rows, rows), relation, (1,), torch.device("cpu"))
    least = num_references * 64 + dim * 8
    assert 0.5e6 / 2 < ranker.num_rows * least <= 0.5e6


def test_more_memory_makes_no_larger_tile_than_the_largest(monkeypatch, rng):
    monkeypatch.setattr(device_ranking, "free_memory", lambda _: 2**50)
    rows = rng.normal(size=(2**10, 2))
    relation = Relation((np.arange(9), np.arange(2**10)))
    cosines = CosineSimilarities(rows, rows)
    assert DeviceRanker(cosines, relation, (1,), torch.device("cpu")).num_rows == 2**17
    # Similarities that are given fill the memory of the host.
    given = DeviceRanker(lambda chosen: cosines(chosen), relation, (1,), torch.device("cpu"))
    assert given.num_rows == 2**13


def test_a_tile_that_memory_does_not_hold_is_ranked_in_parts(many, both_ways, monkeypatch):
    sort = DeviceRanker._sort
    sizes = []

    def sort_few(self, rows, *masks):
        sizes.append(len(rows))
        if len(rows) > 20:
            raise torch.OutOfMemoryError("out of memory")
        return sort(self, rows, *masks)

    monkeypatch.setattr(DeviceRanker, "_sort", sort_few)
    embeddings, labels, groups, copies = many
    search = (embeddings, labels, np.arange(90), np.arange(90), (1, 5), groups, copies)
    found, expected = both_ways(search_values, *search)
    assert max(sizes) > 20
    assert found.rows.tolist() == expected.rows.tolist()
    assert_same(found.values, expected.values)


def test_a_search_in_which_nothing_can_be_found_is_refused_on_a_device(both_ways):
    with pytest.raises(ValueError, match="query_rows must hold a query with another image of its class"):
        both_ways(search_values, at_degrees(0, 10, 20), np.arange(3), np.arange(3), np.arange(3))
