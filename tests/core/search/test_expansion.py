import numpy as np
import pytest

from supcon_pipeline.core.metrics.retrieval import search_values
from supcon_pipeline.core.search.expansion import expand_queries


@pytest.fixture
def embeddings(rng):
    return rng.normal(size=(6, 5))[np.arange(40) % 6] + 0.7 * rng.normal(size=(40, 5))


@pytest.mark.parametrize(("k", "alpha"), [(1, 3.0), (5, 3.0), (5, 0.0), (20, 1.5)])
def test_expanded_queries_are_those_of_a_slow_loop(embeddings, rng, k, alpha):
    copies, gallery_rows = rng.integers(0, 25, 40), rng.permutation(40)[:32]
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = expand_queries(embeddings, np.arange(20), gallery_rows, k, alpha, copies)
    for query in range(20):
        others = [row for row in gallery_rows if copies[row] != copies[query]]
        nearest = sorted(others, key=lambda row: -unit[row] @ unit[query])[:k]
        cosines = [unit[row] @ unit[query] for row in nearest]
        total = unit[query] + sum(
            (cosine**alpha if cosine > 0 else 0.0**alpha) * unit[row]
            for cosine, row in zip(cosines, nearest, strict=True)
        )
        assert found[query] == pytest.approx(total / np.linalg.norm(total), abs=1e-5)


def test_expanded_queries_find_more_where_classes_are_noisy(rng):
    labels, rows = np.repeat(np.arange(10), 20), np.arange(200)
    embeddings = (rng.normal(size=(10, 16))[labels] + 1.5 * rng.normal(size=(200, 16))).astype(np.float32)
    plain = search_values(embeddings, labels, rows, rows).values
    expanded = expand_queries(embeddings, rows, rows, k=5)
    # Expanded queries are rows of their own, and copies of what they were.
    both = np.concatenate([embeddings, expanded])
    found = search_values(both, np.tile(labels, 2), rows + 200, rows, copies=np.tile(rows, 2)).values
    assert found["mean_average_precision"].mean() > plain["mean_average_precision"].mean() + 0.03


def test_queries_are_expanded_by_all_they_find_where_that_is_less(embeddings):
    rows = np.arange(40)
    all_others = expand_queries(embeddings, rows, rows, 20, copies=rows // 20)
    np.testing.assert_array_equal(expand_queries(embeddings, rows, rows, 99, copies=rows // 20), all_others)


def test_an_expansion_that_cannot_be_is_refused(embeddings):
    rows = np.arange(40)
    with pytest.raises(ValueError, match=r"k must be at least 1, .* got 0 and 1"):
        expand_queries(embeddings, rows, rows, 0)
    with pytest.raises(
        ValueError, match="fewer than the 40 rows of the gallery be copies of a query, got 5 and 40"
    ):
        expand_queries(embeddings, rows, rows, 5, copies=0 * rows)
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1"):
        expand_queries(embeddings, rows, rows, 5, -1)
    with pytest.raises(ValueError, match=r"copies must have one number per row \(40\), got 39"):
        expand_queries(embeddings, rows, rows, 5, copies=rows[:-1])
    with pytest.raises(ValueError, match="query_rows must be from 0 to 39, got 0 to 40"):
        expand_queries(embeddings, np.arange(41), rows, 5)
