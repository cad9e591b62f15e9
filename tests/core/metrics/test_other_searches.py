import numpy as np
import pytest

from supcon_pipeline.core.data.class_splits import Search
from supcon_pipeline.core.metrics.features import known_search_metrics
from supcon_pipeline.core.metrics.other_searches import expanded_values, reranked_values
from supcon_pipeline.core.metrics.retrieval import retrieval_values
from supcon_pipeline.core.metrics.unseen import search_metrics, unseen_values
from supcon_pipeline.core.search.expansion import expand_queries
from supcon_pipeline.core.search.reranking import Reranker

ALL = np.arange(60)
AMONG = Search(ALL, ALL, ALL)
BOOTSTRAP = {"num_resamples": 50, "seed": 0}


@pytest.fixture
def rows(rng):
    """Sixty noisy rows of ten classes."""
    labels = rng.permutation(np.repeat(np.arange(10), 6))
    return (np.eye(10, 16)[labels] + 0.4 * rng.normal(size=(60, 16))).astype(np.float32), labels


def test_a_weight_of_one_leaves_the_order_as_it_was(rows):
    embeddings, labels = rows
    options = {"k1": 99, "k2": 99, "weight": 1.0}
    plain = unseen_values(embeddings, labels, AMONG, (1, 5))
    reranked = reranked_values(embeddings, labels, AMONG, (1, 5), options)
    assert reranked.rows.tolist() == plain.rows.tolist()
    for name, values in reranked.values.items():
        assert values.mean() == pytest.approx(plain.values[name].mean(), abs=1e-3)


def test_reranked_scores_are_those_of_the_similarities_of_the_reranker(rows):
    embeddings, labels = rows
    options = {"k1": 8, "k2": 3, "weight": 0.3}
    found = Reranker(embeddings, ALL, ALL, **options).similarities(ALL)
    np.fill_diagonal(found, -2)
    is_right = labels[found.argmax(axis=1)] == labels
    reranked = reranked_values(embeddings, labels, AMONG, (1,), options)
    assert reranked.values["recall_at_1"].tolist() == is_right[reranked.rows].tolist()
    metrics = search_metrics(reranked, labels, **BOOTSTRAP)
    assert metrics["recall_at_1"] == pytest.approx(is_right.mean())


def test_expanded_scores_are_those_of_the_expanded_queries(rows):
    embeddings, labels = rows
    queries, gallery = ALL[:20], ALL[10:]
    search = Search(queries, gallery, ALL)
    expanded = expand_queries(embeddings, queries, gallery, k=3, alpha=2.0, copies=ALL)
    unit = embeddings[gallery] / np.linalg.norm(embeddings[gallery], axis=1, keepdims=True)
    cosines = expanded @ unit.T
    cosines[queries[:, None] == gallery] = -2
    is_right = labels[gallery[cosines.argmax(axis=1)]] == labels[queries]
    found = expanded_values(embeddings, labels, search, (1,), {"k": 3, "alpha": 2.0})
    # The rows are those of the queries themselves.
    assert found.rows.tolist() == queries.tolist()
    assert found.values["recall_at_1"].tolist() == is_right.tolist()


def test_among_training_images_a_reranking_that_changes_nothing_gives_the_plain_metrics(rows):
    embeddings, labels = rows
    test, train = ALL[:20], ALL[20:]
    search, options = Search(test, train), {"k1": 20, "k2": 6, "weight": 1.0}
    found = known_search_metrics(reranked_values(embeddings, labels, search, (1, 5), options), **BOOTSTRAP)
    plain = retrieval_values(embeddings[test], labels[test], embeddings[train], labels[train], (1, 5))
    assert set(found) == {*plain, "intervals"}
    assert set(found["intervals"]) == set(plain)
    for name, values in plain.items():
        assert found[name] == pytest.approx(values.mean(), abs=1e-6)
