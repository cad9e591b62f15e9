import numpy as np
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import (
    average_precision_score,
)
from tests.core.metrics.angles import at_degrees, retrieval_by_loop

from supcon_pipeline.core.metrics.features import embedding_metrics
from supcon_pipeline.core.metrics.ranking import sort_by_similarity
from supcon_pipeline.core.metrics.retrieval import retrieval_values


def test_retrieval_metrics_of_one_query_are_as_by_hand():
    # Ranked by angle the references are of class 0, 1, 0, 0: three positives, two of them in the first three.
    scores = embedding_metrics(at_degrees(0), [0], at_degrees(40, 10, 20, 30, length=3.0), [0, 0, 1, 0])
    expected = {"precision_at_1": 1, "r_precision": 2 / 3, "mean_average_precision_at_r": (1 + 2 / 3) / 3}
    assert scores == pytest.approx(expected)


def test_a_nearest_neighbour_of_another_class_is_a_miss_even_where_the_rest_are_hits():
    scores = embedding_metrics(at_degrees(0), [0], at_degrees(10, 20, 30), [1, 0, 0])
    expected = {"precision_at_1": 0, "r_precision": 1 / 2, "mean_average_precision_at_r": (1 / 2) / 2}
    assert scores == pytest.approx(expected)


@pytest.mark.parametrize("tile_size", [1, 50, 10**6])
@pytest.mark.parametrize("k", [1, 4])
def test_every_metric_of_every_query_is_that_of_a_slow_loop_for_any_tile(embeddings, k, tile_size):
    values = retrieval_values(*embeddings, ks=(1, k), tile_size=tile_size)
    expected = retrieval_by_loop(*embeddings, k)
    assert values.keys() == expected.keys()
    for name, column in values.items():
        np.testing.assert_allclose(column, expected[name], err_msg=name)


@pytest.mark.parametrize("k", [1, None])
def test_retrieval_metrics_are_those_of_pytorch_metric_learning(embeddings, k):
    """With k = 1 the library looks at the nearest reference alone; with all of them, it ranks as we do."""
    queries, query_labels, references, reference_labels = embeddings
    names = ("precision_at_1", "r_precision", "mean_average_precision", "mean_average_precision_at_r")
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, references)]
    calculator = AccuracyCalculator(include=(*names, "mean_reciprocal_rank"), k=k)
    expected = calculator.get_accuracy(unit[0], query_labels, unit[1], reference_labels, False)
    values = {name: column.mean() for name, column in retrieval_values(*embeddings).items()}
    if k == 1:
        assert expected["precision_at_1"] == pytest.approx(values["precision_at_1"])
        assert expected["mean_average_precision"] != pytest.approx(values["mean_average_precision"])
    else:
        assert values == pytest.approx(expected)


def test_average_precision_of_each_query_is_that_of_scikit_learn(embeddings):
    queries, query_labels, references, reference_labels = embeddings
    values = retrieval_values(*embeddings)["mean_average_precision"]
    for query, label, value in zip(queries, query_labels, values, strict=True):
        cosines = references @ query / np.linalg.norm(references, axis=1)
        assert value == pytest.approx(average_precision_score(reference_labels == label, cosines))


def test_of_equally_similar_references_those_of_other_classes_come_first():
    queries, references = at_degrees(0), np.array([[1.0, 0], [2.0, 0], [4.0, 0], [0, 1.0], [0, -1.0]])
    labels = np.array([0, 1, 0, 1, 0])
    for order in (np.arange(5), np.arange(5)[::-1], np.array([2, 0, 4, 1, 3])):
        values = retrieval_values(queries, [0], references[order], labels[order], ks=(1, 2))
        assert {name: column[0] for name, column in values.items()} == pytest.approx(
            {
                "precision_at_1": 0,
                "precision_at_2": 1 / 2,
                "r_precision": 2 / 3,
                "mean_average_precision_at_r": (1 / 2 + 2 / 3) / 3,
                "mean_average_precision": (1 / 2 + 2 / 3 + 3 / 5) / 3,
                "mean_reciprocal_rank": 1 / 2,
            }
        )


@pytest.mark.parametrize(("num_references", "dim"), [(97, 768), (151, 100), (103, 32)])
def test_a_collapsed_encoder_gains_nothing_by_the_shape_of_a_product(rng, num_references, dim):
    row = rng.normal(size=dim).astype(np.float32)
    queries, references = np.tile(row, (47, 1)), np.tile(row, (num_references, 1))
    # BLAS multiplies a single row, and the last rows of a matrix, in a way of their own.
    for tile_size in (46 * num_references, 9 * num_references, 1):
        for is_hit in (np.arange(num_references) >= num_references - last for last in (1, 3, 7)):
            values = retrieval_values(queries, np.ones(47), references, is_hit, tile_size=tile_size)
            assert not values["precision_at_1"].any()
            values = retrieval_values(queries, np.zeros(47), references, is_hit, tile_size=tile_size)
            assert not values["precision_at_1"].any()


def test_what_differs_by_rounding_alone_is_equally_similar(rng):
    row = rng.normal(size=64).astype(np.float32)
    queries, references = (row * (1 + 1e-6 * rng.normal(size=(count, 64))) for count in (20, 40))
    values = retrieval_values(queries, np.arange(20) % 2, references, np.arange(40) % 2, ks=(1, 20))
    assert not values["precision_at_20"].any()


def test_each_of_two_equal_references_of_two_classes_comes_first_for_queries_of_the_other(rng):
    references = rng.normal(size=(301, 96)).astype(np.float32)
    queries = rng.normal(size=(203, 96)).astype(np.float32)
    copies, labels = np.concatenate([references, references]), np.repeat([0, 1], 301)
    for tile_size in (1, 10_000, 2**21):
        values = retrieval_values(queries, np.arange(203) % 2, copies, labels, (1, 2), tile_size)
        assert not values["precision_at_1"].any()
        assert (values["precision_at_2"] == 0.5).all()


def test_similarities_of_either_sign_are_ranked_and_those_within_rounding_are_equal(rng):
    similarities = np.array([[0.5, -0.5, 0.0, -0.0, 1e-8, -1e-8, 1.0, -1.0, 1e-6, 1 - 1e-6]])
    told_apart = similarities.round(7)[0]
    for _ in range(20):
        is_positive = rng.integers(0, 2, (1, 10)).astype(bool)
        order = sorted(range(10), key=lambda i: (-told_apart[i], is_positive[0, i]))
        assert np.array_equal(sort_by_similarity(similarities, is_positive), is_positive[:, order])


def test_a_query_whose_class_no_reference_has_is_left_out(embeddings):
    queries, query_labels, references, reference_labels = embeddings
    changed = np.where(np.arange(20) == 3, 9, query_labels)
    expected = {name: np.delete(column, 3) for name, column in retrieval_values(*embeddings).items()}
    values = retrieval_values(queries, changed, references, reference_labels)
    assert all(np.array_equal(values[name], expected[name]) for name in expected)


def test_separated_classes_score_one():
    labels = np.repeat([0, 1, 2], 6)
    queries = at_degrees(*(labels * 120 + np.tile(np.arange(6) / 10, 3)))
    assert embedding_metrics(queries, labels, queries[::-1].copy(), labels[::-1].copy()) == pytest.approx(
        dict.fromkeys(["precision_at_1", "r_precision", "mean_average_precision_at_r", "ami", "nmi"], 1.0)
    )


def test_embeddings_without_a_label_each_are_refused(embeddings):
    queries, query_labels, references, reference_labels = embeddings
    with pytest.raises(ValueError, match="labels of the queries must have the same length"):
        embedding_metrics(queries, query_labels[:-1], references, reference_labels)
    with pytest.raises(ValueError, match="labels of the references must have the same length"):
        embedding_metrics(queries, query_labels, references, reference_labels[:-1])


def test_a_search_that_cannot_be_scored_is_refused(embeddings):
    queries, query_labels, references, reference_labels = embeddings
    with pytest.raises(ValueError, match="reference_labels must hold the class of a query, got none"):
        retrieval_values(queries, query_labels + 10, references, reference_labels)
    for k in (0, 22):
        with pytest.raises(
            ValueError, match=rf"k must be from 1 to the number of references \(21\), got {k}"
        ):
            retrieval_values(*embeddings, ks=(1, k))
    with pytest.raises(ValueError, match="references must be finite, got NaN"):
        retrieval_values(queries, query_labels, references * np.nan, reference_labels)
