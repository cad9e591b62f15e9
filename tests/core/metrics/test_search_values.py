"""Searching a set among itself or a gallery: the second half of `core.metrics.retrieval`."""

import numpy as np
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from tests.core.metrics.angles import at_degrees

from supcon_pipeline.core.metrics.retrieval import retrieval_values, search_values


def search_by_loop(embeddings, labels, query_rows, gallery_rows, ks, groups, copies):
    """One query and one row at a time, by the words of the docstring."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows, found = [], []
    for query in query_rows:
        candidates = []
        for row in gallery_rows:
            is_match = labels[row] == labels[query]
            if row == query or copies[row] == copies[query] or (is_match and groups[row] == groups[query]):
                continue
            candidates.append((-round(float(unit[row] @ unit[query]), 6), bool(is_match)))
        ranked = [is_match for _, is_match in sorted(candidates)]
        total = sum(ranked)
        if not total:
            continue
        precisions = [sum(ranked[: rank + 1]) / (rank + 1) for rank in range(len(ranked))]
        hits = np.flatnonzero(ranked)
        scores = {f"recall_at_{k}": float(any(ranked[:k])) for k in ks}
        scores |= {f"precision_at_{k}": sum(ranked[:k]) / k for k in ks}
        scores["r_precision"] = sum(ranked[:total]) / total
        scores["mean_average_precision_at_r"] = sum(precisions[i] for i in hits if i < total) / total
        scores["mean_average_precision"] = sum(precisions[i] for i in hits) / total
        scores["mean_reciprocal_rank"] = 1 / (hits[0] + 1)
        rows.append(query)
        found.append(scores)
    return rows, {name: [scores[name] for scores in found] for name in found[0]}


@pytest.fixture
def many(rng):
    """60 rows of 15 classes, some of them copies of others, so that there are ties."""
    embeddings = rng.normal(size=(15, 5))[np.arange(60) % 15] + rng.normal(size=(60, 5))
    copies = np.arange(60)
    copies[50:] = copies[:10]
    embeddings[50:] = embeddings[:10]
    embeddings[40:45] = 2 * embeddings[30:35]
    return embeddings, rng.permutation(np.arange(60) % 15), rng.integers(0, 3, 60), copies


@pytest.mark.parametrize("tile_size", [1, 130, 10**6])
@pytest.mark.parametrize(
    ("query_rows", "gallery_rows"),
    [(np.arange(60), np.arange(60)), (np.arange(20, 60), np.arange(35)), (np.arange(30), np.arange(30, 60))],
)
def test_every_metric_of_a_search_is_that_of_a_slow_loop(many, query_rows, gallery_rows, tile_size):
    embeddings, labels, groups, copies = many
    for kinds in ({}, {"groups": groups}, {"copies": copies}, {"groups": groups, "copies": copies}):
        own = {"groups": np.arange(60), "copies": np.arange(60)} | kinds
        search = (embeddings, labels, query_rows, gallery_rows, (1, 2, 10))
        rows, expected = search_by_loop(*search, **own)
        found = search_values(*search, **kinds, tile_size=tile_size)
        assert found.rows.tolist() == rows
        assert found.values.keys() == expected.keys()
        for name, column in found.values.items():
            np.testing.assert_allclose(column, expected[name], err_msg=name)


def test_a_set_searched_among_itself_has_the_metrics_of_pytorch_metric_learning(rng):
    labels = np.repeat(np.arange(12), [2, 3, 4, 5, 6, 7] * 2)
    embeddings = rng.normal(size=(12, 8))[labels] + 1.5 * rng.normal(size=(len(labels), 8))
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision")
    rows = np.arange(len(labels))
    values = search_values(embeddings, labels, rows, rows).values
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    calculator = AccuracyCalculator(include=(*names, "mean_reciprocal_rank"), k=len(labels) - 1)
    expected = calculator.get_accuracy(unit, labels)
    assert values.pop("recall_at_1").mean() == expected["precision_at_1"]
    assert {name: column.mean() for name, column in values.items()} == pytest.approx(expected, abs=1e-6)


def test_a_query_finds_neither_itself_nor_its_copies_nor_its_class_and_group():
    # Beside the query: its copy of another class, its class and group, its group alone, its class alone.
    embeddings, labels = at_degrees(0, 0, 10, 20, 30), np.array([0, 1, 0, 1, 0])
    groups, copies = np.array([7, 8, 7, 7, 9]), np.array([0, 0, 1, 2, 3])
    found = search_values(embeddings, labels, [0], range(5), (1, 2, 3), groups, copies)
    assert {name: column[0] for name, column in found.values.items()} == pytest.approx(
        {
            "recall_at_1": 0,
            "recall_at_2": 1,
            "precision_at_1": 0,
            "precision_at_2": 1 / 2,
            "r_precision": 0,
            "mean_average_precision_at_r": 0,
            "mean_average_precision": 1 / 2,
            "mean_reciprocal_rank": 1 / 2,
        }
    )


def test_a_search_of_other_rows_is_that_of_queries_among_references(many):
    embeddings, labels, *_ = many
    queries, gallery = np.arange(20), np.arange(20, 60)
    expected = retrieval_values(embeddings[:20], labels[:20], embeddings[20:], labels[20:], (1, 5))
    values = search_values(embeddings, labels, queries, gallery, (1, 5)).values
    assert all(np.array_equal(values[name], column) for name, column in expected.items())
    assert values.keys() - expected.keys() == {"recall_at_1", "recall_at_5"}


def test_a_collapsed_encoder_finds_nothing_among_its_own_rows(rng):
    row = rng.normal(size=100).astype(np.float32)
    embeddings, labels, rows = np.tile(row, (151, 1)), np.arange(151) % 3, np.arange(151)
    for tile_size in (1, 1000, 10**6):
        values = search_values(embeddings, labels, rows, rows, (1, 100), tile_size=tile_size).values
        assert not values["recall_at_100"].any()


def test_a_k_above_the_rows_that_a_query_searches_is_left_out(many):
    embeddings, labels, *_ = many
    names = search_values(embeddings, labels, np.arange(60), np.arange(60), (59, 60)).values
    assert {"recall_at_59", "precision_at_59"} < set(names)
    assert not {"recall_at_60", "precision_at_60"} & set(names)
    copies = np.where(np.arange(60) < 4, 0, np.arange(60))
    names = search_values(embeddings, labels, [50, 5], range(50), (1, 49, 50), copies=copies).values
    assert "recall_at_49" in names
    assert "recall_at_50" not in names


def test_a_search_that_cannot_be_is_refused(many):
    embeddings, labels, groups, copies = many
    rows = np.arange(60)
    with pytest.raises(ValueError, match="query_rows must hold a query with another image of its class"):
        search_values(embeddings, np.arange(60), rows, rows)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        search_values(embeddings, labels, rows, rows, (1, 0))
    with pytest.raises(ValueError, match="gallery_rows must be from 0 to 59, got 0 to 60"):
        search_values(embeddings, labels, rows, np.arange(61))
    with pytest.raises(ValueError, match="query_rows must hold at least one row, got none"):
        search_values(embeddings, labels, rows[:0], rows)
    with pytest.raises(ValueError, match=r"copies must have one number per row \(60\), got 59"):
        search_values(embeddings, labels, rows, rows, groups=groups, copies=copies[:-1])
    with pytest.raises(ValueError, match="embeddings must be finite, got NaN"):
        search_values(embeddings * np.nan, labels, rows, rows)
