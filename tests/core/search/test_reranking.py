import numpy as np
import pytest

from supcon_pipeline.core.metrics.retrieval import search_values
from supcon_pipeline.core.search.reranking import Reranker


def distances_by_loop(embeddings, k1, k2, weight):
    """The final distances between all rows by the equations of the paper, one pair and one set at a time."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows, d = range(len(unit)), 1 - unit @ unit.T

    def nearest(p, k):
        return [p, *sorted((g for g in rows if g != p), key=lambda g: d[p, g])[:k]]

    def reciprocal(p, k):
        return {g for g in nearest(p, k) if p in nearest(g, k)}

    def expanded(p):
        found = reciprocal(p, k1)
        for q in reciprocal(p, k1):
            half = reciprocal(q, k1 // 2)
            if len(reciprocal(p, k1) & half) >= 2 / 3 * len(half):
                found |= half
        return found

    codes = np.array(
        [
            [np.exp(-d[p, g]) if g in found else 0 for g in rows]
            for p, found in ((p, expanded(p)) for p in rows)
        ]
    )
    codes = np.array([np.mean([codes[g] for g in nearest(p, k2 - 1)], axis=0) for p in rows])
    jaccard = np.array(
        [
            [1 - np.minimum(one, other).sum() / np.maximum(one, other).sum() for other in codes]
            for one in codes
        ]
    )
    return (1 - weight) * jaccard + weight * d


@pytest.fixture
def embeddings(rng):
    return rng.normal(size=(6, 5))[np.arange(40) % 6] + 0.5 * rng.normal(size=(40, 5))


@pytest.mark.parametrize(("k1", "k2", "weight"), [(8, 3, 0.3), (5, 1, 0.0), (9, 9, 0.7), (2, 2, 0.5)])
def test_reranked_similarities_are_those_of_a_slow_loop_of_the_paper(embeddings, k1, k2, weight):
    rows = np.arange(40)
    expected = 1 - distances_by_loop(embeddings, k1, k2, weight)
    found = Reranker(embeddings, rows, rows, k1, k2, weight).similarities(rows)
    assert found == pytest.approx(expected, abs=1e-6)


def test_queries_and_gallery_are_one_set_and_other_rows_have_no_part_in_it(embeddings, rng):
    query_rows, gallery_rows = np.array([7, 3, 30, 12]), rng.permutation(np.arange(10, 40))
    members = np.union1d(query_rows, gallery_rows)
    whole = 1 - distances_by_loop(embeddings[members], 6, 3, 0.3)
    places = np.searchsorted(members, query_rows), np.searchsorted(members, gallery_rows)
    reranker = Reranker(embeddings, query_rows, gallery_rows, 6, 3, 0.3)
    assert reranker.similarities(query_rows) == pytest.approx(whole[np.ix_(*places)], abs=1e-6)
    assert reranker.similarities(query_rows[2:3]) == pytest.approx(whole[places[0][2], places[1]][None])


def test_with_all_the_weight_the_metrics_are_those_of_plain_search(embeddings):
    labels, rows = np.arange(40) % 6, np.arange(40)
    plain = search_values(embeddings, labels, rows, rows, (1, 5)).values
    same = Reranker(embeddings, rows, rows, 8, 3, 1.0).similarities
    found = search_values(embeddings, labels, rows, rows, (1, 5), similarities=same).values
    assert all(np.array_equal(found[name], plain[name]) for name in plain)


def test_metrics_after_reranking_are_those_of_the_reranked_order(embeddings):
    labels, rows = np.arange(40) % 6, np.arange(40)
    reranker = Reranker(embeddings, rows, rows, 8, 3)
    found = search_values(embeddings, labels, rows, rows, (1,), similarities=reranker.similarities).values
    similarities = 1 - distances_by_loop(embeddings, 8, 3, 0.3)
    np.fill_diagonal(similarities, -2)
    assert np.array_equal(found["recall_at_1"], labels[similarities.argmax(axis=1)] == labels)


def test_reranking_finds_more_where_images_of_a_class_share_their_neighbours(rng):
    labels, rows = np.repeat(np.arange(10), 20), np.arange(200)
    embeddings = rng.normal(size=(10, 16))[labels] + 1.5 * rng.normal(size=(200, 16))
    plain = search_values(embeddings, labels, rows, rows).values
    similarities = Reranker(embeddings, rows, rows).similarities
    found = search_values(embeddings, labels, rows, rows, similarities=similarities).values
    assert found["mean_average_precision"].mean() > plain["mean_average_precision"].mean() + 0.05


def test_a_reranking_that_cannot_be_is_refused(embeddings):
    rows = np.arange(40)
    for k1 in (1, 40):
        with pytest.raises(ValueError, match=f"k1 must be from 2 to 39, the other images, got {k1}"):
            Reranker(embeddings, rows, rows, k1, 1)
    with pytest.raises(ValueError, match=r"k2 must be from 1 to k1 \(5\), got 6"):
        Reranker(embeddings, rows, rows, 5, 6)
    with pytest.raises(ValueError, match=r"weight must be from 0 to 1, got 1\.5"):
        Reranker(embeddings, rows, rows, 5, 2, 1.5)
    with pytest.raises(ValueError, match="gallery_rows must be from 0 to 39, got 0 to 40"):
        Reranker(embeddings, rows, np.arange(41))
    with pytest.raises(ValueError, match="query_rows must be among those that were given, got 30"):
        Reranker(embeddings, rows[:20], rows[:20], 5, 2).similarities(np.array([3, 30]))
    with pytest.raises(ValueError, match="queries must be finite, got NaN"):
        Reranker(embeddings * np.nan, rows, rows, 5, 2)
