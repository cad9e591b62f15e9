import numpy as np
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_mutual_info_score,
    average_precision_score,
    normalized_mutual_info_score,
    silhouette_score,
)

from supcon_pipeline.core.metrics.classification import accuracy
from supcon_pipeline.core.metrics.clustering import clustering_metrics, silhouette
from supcon_pipeline.core.metrics.direction import score
from supcon_pipeline.core.metrics.features import embedding_metrics
from supcon_pipeline.core.metrics.retrieval import _sort_by_similarity, retrieval_values
from supcon_pipeline.core.vectors import unit_rows


def at_degrees(*angles, length=1.0):
    return length * np.array([[np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))] for angle in angles])


def retrieval_by_loop(queries, query_labels, references, reference_labels, k=1):
    """Musgrave et al. 2020, section 3.2, and the sums of textbooks, one query and one rank at a time."""
    scores = []
    for query, label in zip(queries, query_labels, strict=True):
        cosines = [query @ r / np.linalg.norm(query) / np.linalg.norm(r) for r in references]
        ranked = [reference_labels[index] == label for index in np.argsort(cosines)[::-1]]
        num_positives = sum(ranked)
        hits, precisions, within_r = 0, 0.0, (0, 0.0)
        for rank, is_hit in enumerate(ranked, start=1):
            hits += is_hit
            precisions += is_hit * hits / rank
            within_r = (hits, precisions) if rank == num_positives else within_r
        scores.append(
            [
                ranked[0],
                sum(ranked[:k]) / k,
                *(np.array([*within_r, precisions]) / num_positives),
                1 / (1 + ranked.index(True)),
            ]
        )
    names = [
        "precision_at_1",
        f"precision_at_{k}",
        "r_precision",
        "mean_average_precision_at_r",
        "mean_average_precision",
        "mean_reciprocal_rank",
    ]
    return {
        name: np.array(column, float) for name, column in zip(names, zip(*scores, strict=True), strict=True)
    }


@pytest.fixture
def embeddings(rng):
    """Overlapping classes of unequal size."""
    query_labels, reference_labels = np.repeat([0, 1, 2], [5, 9, 6]), np.repeat([0, 1, 2], [3, 11, 7])
    centers = rng.normal(size=(3, 4))
    queries = centers[query_labels] + rng.normal(size=(20, 4))
    references = centers[reference_labels] + rng.normal(size=(21, 4))
    return queries, query_labels, references, reference_labels


def test_retrieval_metrics_of_one_query_are_as_by_hand():
    # Ranked by angle the references are of class 0, 1, 0, 0: three positives, two of them in the first three.
    scores = embedding_metrics(at_degrees(0), [0], at_degrees(40, 10, 20, 30, length=3.0), [0, 0, 1, 0])
    expected = {"precision_at_1": 1, "r_precision": 2 / 3, "mean_average_precision_at_r": (1 + 2 / 3) / 3}
    assert scores == pytest.approx(expected)


def test_a_nearest_neighbour_of_another_class_is_a_miss_even_where_the_rest_are_hits():
    scores = embedding_metrics(at_degrees(0), [0], at_degrees(10, 20, 30), [1, 0, 0])
    expected = {"precision_at_1": 0, "r_precision": 1 / 2, "mean_average_precision_at_r": (1 / 2) / 2}
    assert scores == pytest.approx(expected)


def test_metrics_of_an_epoch_are_those_of_a_slow_loop(embeddings):
    expected = retrieval_by_loop(*embeddings)
    scores = {name: value for name, value in embedding_metrics(*embeddings).items() if name in expected}
    assert scores == pytest.approx({name: expected[name].mean() for name in scores})
    # Looking at the nearest neighbour alone would make all three the same.
    assert len({round(score, 6) for score in scores.values()}) == 3


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
        assert np.array_equal(_sort_by_similarity(similarities, is_positive), is_positive[:, order])


def test_a_query_whose_class_no_reference_has_is_left_out(embeddings):
    queries, query_labels, references, reference_labels = embeddings
    changed = np.where(np.arange(20) == 3, 9, query_labels)
    expected = {name: np.delete(column, 3) for name, column in retrieval_values(*embeddings).items()}
    values = retrieval_values(queries, changed, references, reference_labels)
    assert all(np.array_equal(values[name], expected[name]) for name in expected)


def test_clustering_metrics_compare_the_labels_with_the_clusters():
    # Three tight bundles, one image of which has the label of another bundle: any k-means finds the bundles.
    bundles = np.repeat([0, 1, 2], 6)
    queries = at_degrees(*(bundles * 120 + np.tile(np.arange(6) / 10, 3)))
    labels = bundles.copy()
    labels[0] = 1
    scores = embedding_metrics(queries, labels, queries, labels)
    assert scores["ami"] == pytest.approx(adjusted_mutual_info_score(labels, bundles))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, bundles))


@pytest.mark.parametrize("seed", range(5))
def test_clusters_of_ten_bundles_are_those_of_many_starts_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 400)
    rows = unit_rows(rng.normal(size=(10, 64))[labels] + 0.5 * rng.normal(size=(400, 64)))
    expected = KMeans(10, n_init=20, random_state=seed).fit_predict(rows)
    scores = clustering_metrics(rows, labels)
    assert scores["ami"] == pytest.approx(adjusted_mutual_info_score(labels, expected))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, expected))


def test_rows_that_are_all_the_same_have_no_clusters_to_agree_with():
    assert clustering_metrics(np.ones((6, 3)), [0, 0, 1, 1, 2, 2])["ami"] == pytest.approx(0)


def test_nearly_as_many_classes_as_rows_are_clustered():
    rows = np.eye(1101, dtype=np.float32)
    rows[1100] = rows[0]
    labels = np.append(np.arange(1100), 0)
    assert clustering_metrics(rows, labels) == pytest.approx({"ami": 1, "nmi": 1})


@pytest.mark.parametrize("labels", [[4, 4, 4, 4], [3, 1, 2, 0]])
def test_of_one_class_or_one_image_in_each_no_clustering_is_better_than_another(labels, rng):
    queries = rng.normal(size=(4, 3))
    assert clustering_metrics(queries, labels) == {}
    assert set(embedding_metrics(queries, labels, queries, labels)) == {
        "precision_at_1",
        "r_precision",
        "mean_average_precision_at_r",
    }


def test_separated_classes_score_one():
    labels = np.repeat([0, 1, 2], 6)
    queries = at_degrees(*(labels * 120 + np.tile(np.arange(6) / 10, 3)))
    assert embedding_metrics(queries, labels, queries[::-1].copy(), labels[::-1].copy()) == pytest.approx(
        dict.fromkeys(["precision_at_1", "r_precision", "mean_average_precision_at_r", "ami", "nmi"], 1.0)
    )


def test_length_order_and_rotation_change_no_metric(rng, embeddings):
    queries, query_labels, references, reference_labels = embeddings
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    lengths = rng.uniform(0.1, 10, (20, 1))
    order, reference_order = rng.permutation(20), rng.permutation(21)
    changed = embedding_metrics(
        (queries * lengths @ rotation)[order],
        query_labels[order],
        (references @ rotation)[reference_order],
        reference_labels[reference_order],
    )
    assert changed == pytest.approx(embedding_metrics(*embeddings))


def test_the_same_embeddings_have_the_same_metrics_again(embeddings):
    first = embedding_metrics(*embeddings)
    embedding_metrics(embeddings[0][:6], embeddings[1][:6], *embeddings[2:])
    assert embedding_metrics(*embeddings) == first


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


def test_the_silhouette_of_three_images_is_as_by_hand():
    # Two at right angles in one class, the third opposite to the first and alone in its class.
    expected = [(2 - 1) / 2, (1 - 1) / 1, 0]
    assert silhouette(at_degrees(0, 90, 180), [0, 0, 1]) == pytest.approx(np.mean(expected))


def test_the_silhouette_is_that_of_scikit_learn(embeddings):
    queries, query_labels, _, _ = embeddings
    labels = np.append(query_labels[:-1], 7)
    expected = silhouette_score(queries, labels, metric="cosine")
    assert silhouette(queries, labels) == pytest.approx(expected, abs=1e-6)
    assert silhouette(3 * queries[::-1], 5 - labels[::-1]) == pytest.approx(expected, abs=1e-6)


def test_the_silhouette_of_rows_that_are_all_the_same_is_zero():
    assert silhouette(np.ones((6, 3)), [0, 0, 0, 1, 1, 1]) == pytest.approx(0, abs=1e-3)


def test_the_silhouette_of_one_class_is_refused():
    with pytest.raises(ValueError, match="labels must be of at least two classes, got 1"):
        silhouette(at_degrees(0, 90), [4, 4])


def test_accuracy_is_the_share_that_is_right():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 2])) == 0.75


def test_accuracy_is_that_of_a_slow_loop_in_any_order(rng):
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    share = sum(label == guess for label, guess in zip(labels, predicted, strict=True)) / 50
    order = rng.permutation(50)
    assert accuracy(labels, predicted) == accuracy(labels[order], predicted[order]) == pytest.approx(share)


@pytest.mark.parametrize("num_predicted", [2, 1])
def test_accuracy_of_fewer_predictions_than_labels_is_refused(num_predicted):
    with pytest.raises(ValueError, match=r"shapes|predicted"):
        accuracy(np.array([1, 2, 1]), np.array([1, 2])[:num_predicted])


def test_rows_of_length_one_are_as_by_hand_and_zeros_stay():
    rows = np.array([[3, 4], [0, 0], [0, -2]])
    assert unit_rows(rows).dtype == np.float32
    np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [0, 0], [0, -1]], rtol=1e-6)


def test_rows_of_length_one_depend_on_no_scale_and_have_the_type_asked_for(rng):
    rows = rng.normal(size=(9, 4))
    scaled = unit_rows(rows * rng.uniform(0.1, 9, (9, 1)), np.float64)
    np.testing.assert_allclose(scaled, unit_rows(rows, np.float64), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-12)
    assert unit_rows(np.asfortranarray(rows)).flags.c_contiguous


def test_a_score_is_up_where_a_metric_is_better_and_lowest_where_it_is_no_number():
    metrics = {"accuracy": 0.8, "log_loss": 0.3, "nothing": float("nan")}
    assert score(metrics, "accuracy") == 0.8
    assert score(metrics, "log_loss") == -0.3
    assert score(metrics, "nothing") == score({"log_loss": float("nan")}, "log_loss") == -np.inf
