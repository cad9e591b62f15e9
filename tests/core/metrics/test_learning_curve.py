from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from supcon_pipeline.core.metrics import learning_curve as module
from supcon_pipeline.core.metrics.learning_curve import learning_curve

NAMES = ["k-NN", "class centre", "logistic regression"]


def curve(queries, query_labels, references, reference_labels, counts=(1, 2, 5), **options):
    given = {"num_draws": 4, "knn_k": 3, "knn_temperature": 0.1, "num_resamples": 50, "seed": 0}
    return learning_curve(
        queries, query_labels, references, reference_labels, counts=counts, **{**given, **options}
    )


def by_point(table, column="accuracy"):
    return {(row["images_per_class"], row["classifier"]): row[column] for row in table}


@pytest.fixture
def fans(rng):
    """Three overlapping classes with 4, 9 and 30 references, and 40 queries."""
    centers = rng.normal(size=(3, 6))

    def rows(labels):
        return (centers[labels] + rng.normal(size=(len(labels), 6))).astype(np.float32)

    references, queries = np.repeat([2, 5, 7], [4, 9, 30]), rng.choice([2, 5, 7], 40)
    as_index = {2: 0, 5: 1, 7: 2}
    return (
        rows(np.array([as_index[label] for label in queries])),
        queries,
        rows(np.array([as_index[label] for label in references])),
        references,
    )


def test_two_classes_on_the_axes_are_told_apart_as_by_hand():
    references = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    # The mean of the first class points to 18 degrees: the middle between it and 90 degrees is at 54 degrees.
    angles = np.deg2rad([30, 50, 58, 80])
    queries = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    table = curve(queries, np.array([0, 0, 0, 1]), references, np.array([0, 0, 1]), counts=(), knn_k=1)
    assert [row["classifier"] for row in table] == NAMES
    # The nearest of 37 and 90 degrees, and the nearest of the centres.
    assert by_point(table)[2, "k-NN"] == 1.0
    assert by_point(table)[2, "class centre"] == 0.75
    about = {
        (row["num_draws"], row["num_images"], row["num_classes"], row["num_smaller_classes"]) for row in table
    }
    assert about == {(1, 3, 2, 1)}


def test_with_all_images_each_classifier_is_that_of_scikit_learn(fans):
    queries, query_labels, references, labels = fans
    unit, asked = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (references, queries))
    neighbours = KNeighborsClassifier(
        3, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.1)
    )
    centres = NearestCentroid().fit(unit, labels).centroids_
    nearest = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(centres, np.unique(labels))
    regression = LogisticRegression(C=10, tol=1e-8, max_iter=1000).fit(unit, labels)
    models = [neighbours.fit(unit, labels), nearest, regression]
    expected = [float((model.predict(asked) == query_labels).mean()) for model in models]
    table = curve(*fans, counts=(40,))
    assert list(by_point(table)) == [(30, name) for name in NAMES]
    assert list(by_point(table).values()) == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_few_images_are_drawn_at_random_from_each_class_and_a_class_gives_all_it_has(fans, monkeypatch):
    _, _, references, labels = fans
    known = []

    def spy(rows, given, queries):
        where = [int(np.flatnonzero((references == row).all(axis=1))[0]) for row in rows]
        assert np.array_equal(np.unique(labels)[given], labels[where])
        known.append(where)
        return np.zeros(len(queries), dtype=int)

    monkeypatch.setattr(module, "_nearest_centres", spy)
    table = [row for row in curve(*fans, counts=(5, 1, 5, 9, 99)) if row["classifier"] == "class centre"]
    assert [row["images_per_class"] for row in table] == [1, 5, 9, 30]
    assert [row["num_images"] for row in table] == [3, 14, 22, 43]
    assert [row["num_smaller_classes"] for row in table] == [0, 1, 1, 2]
    assert [row["num_draws"] for row in table] == [4, 4, 4, 1]
    sizes = [Counter(labels[where].tolist()) for where in known]
    assert sizes == [{2: 1, 5: 1, 7: 1}] * 4 + [{2: 4, 5: 5, 7: 5}] * 4 + [{2: 4, 5: 9, 7: 9}] * 4 + [
        {2: 4, 5: 9, 7: 30}
    ]
    assert all(len(set(where)) == len(where) for where in known)
    # Draws differ, and each labels more images of those it has.
    assert len({tuple(where) for where in known}) == 13
    for draw in range(4):
        assert set(known[draw]) < set(known[4 + draw]) < set(known[8 + draw])


def test_every_image_of_a_class_is_as_likely_to_be_drawn():
    labels = np.array([0] * 4 + [1] * 2)
    drawn = Counter()
    for draw in range(2000):
        places = module._places_in_class(labels, np.bincount(labels), (0, draw))
        drawn.update(np.flatnonzero(places < 1).tolist())
    assert [drawn[image] / 2000 for image in range(6)] == pytest.approx([0.25] * 4 + [0.5] * 2, abs=0.03)


def test_the_accuracy_is_the_mean_of_the_draws_each_by_a_slow_loop(fans):
    queries, query_labels, references, labels = fans
    sizes = np.unique(labels, return_counts=True)[1]
    classes = np.unique(labels, return_inverse=True)[1]
    accuracies = []
    for draw in range(4):
        known = np.flatnonzero(module._places_in_class(classes, sizes, (5, draw)) < 2)
        right = 0
        for query, label in zip(queries, query_labels, strict=True):
            similarities = {
                int(row): float(
                    query @ references[row] / np.linalg.norm(query) / np.linalg.norm(references[row])
                )
                for row in known
            }
            votes = Counter()
            for row in sorted(known, key=lambda row: -similarities[int(row)])[:3]:
                votes[int(labels[row])] += np.exp(similarities[int(row)] / 0.1)
            right += votes.most_common(1)[0][0] == label
        accuracies.append(right / len(queries))
    table = curve(*fans, seed=5)
    assert by_point(table)[2, "k-NN"] == pytest.approx(np.mean(accuracies))
    assert len(set(accuracies)) > 1


def test_the_interval_holds_the_accuracy_and_is_wider_with_few_images(fans):
    table = curve(*fans, counts=(1,), num_draws=20, num_resamples=1000)
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in table)
    widths = {(row["images_per_class"], row["classifier"]): row["high"] - row["low"] for row in table}
    assert all(widths[1, name] > widths[30, name] > 0 for name in NAMES)


def test_the_same_seed_draws_the_same_images_and_another_draws_others(fans):
    assert curve(*fans) == curve(*fans)
    assert (
        by_point(curve(*fans, counts=(1,), seed=1))[1, "k-NN"]
        != by_point(curve(*fans, counts=(1,)))[1, "k-NN"]
    )


def test_more_draws_begin_with_the_same(fans, monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "_nearest_centres", lambda rows, _, queries: seen.append(rows) or np.zeros(len(queries), int)
    )
    curve(*fans, counts=(2,), num_draws=2)
    few, seen[:] = list(seen), []
    curve(*fans, counts=(2,), num_draws=5)
    assert all(np.array_equal(a, b) for a, b in zip(few[:2], seen[:2], strict=True))


def test_images_of_a_class_that_was_never_labelled_count_as_wrong(fans):
    queries, _, references, labels = fans
    table = curve(queries, np.full(40, 6), references, labels)
    assert {(row["accuracy"], row["low"], row["high"]) for row in table} == {(0.0, 0.0, 0.0)}


def test_a_class_without_test_images_is_known_all_the_same(fans):
    queries, query_labels, references, labels = fans
    asked = query_labels != 2
    table = curve(queries[asked], query_labels[asked], references, labels)
    assert {row["num_classes"] for row in table} == {3}


@pytest.mark.parametrize("sizes", [[1, 1, 1], [1, 6, 1], [6]])
def test_a_single_image_in_a_class_and_a_single_class_are_classified_too(rng, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = (np.eye(4)[labels] + 0.01 * rng.normal(size=(len(labels), 4))).astype(np.float32)
    table = curve(rows, labels, rows, labels)
    points = sorted({count for count in (1, 2, 5) if count < max(sizes)} | {max(sizes)})
    assert list(by_point(table)) == [(count, name) for count in points for name in NAMES]
    assert {row["accuracy"] for row in table} == {1.0}


def test_many_classes_with_an_image_each_give_no_warning(rng):
    rows, labels = rng.normal(size=(40, 8)).astype(np.float32), np.arange(40)
    assert by_point(curve(rows, labels, rows, labels))[1, "logistic regression"] == 1.0


def test_an_encoder_that_has_collapsed_gains_nothing(fans):
    queries, query_labels, references, labels = fans
    for value in (0.0, 2.0):
        table = curve(np.full_like(queries, value), query_labels, np.full_like(references, value), labels)
        shares = [float((query_labels == label).mean()) for label in (2, 5, 7)]
        assert all(min(shares) - 1e-9 <= row["accuracy"] <= max(shares) + 1e-9 for row in table)


def test_where_the_work_is_too_much_there_are_fewer_draws_and_no_regression(fans, monkeypatch):
    # A search among 3 of the 43 references takes 720 multiplications, a fit to them 1,080.
    monkeypatch.setattr(module, "MAX_WORK", 6000)
    monkeypatch.setattr(module, "MIN_FIT_DIM", 1)
    table = curve(*fans, counts=(1, 2), num_draws=9)
    assert by_point(table, "num_draws") == {
        (1, "k-NN"): 8, (1, "class centre"): 8, (1, "logistic regression"): 5,
        (2, "k-NN"): 4, (2, "class centre"): 8, (2, "logistic regression"): 2,
        (30, "k-NN"): 1, (30, "class centre"): 1,
    }  # fmt: skip
    monkeypatch.setattr(module, "MAX_WORK", 10)
    table = curve(*fans, counts=(1, 2), num_draws=9)
    assert by_point(table, "num_draws") == {
        (count, name): num for count, num in ((1, 2), (2, 2), (30, 1)) for name in NAMES[:2]
    }


def test_scores_in_tiles_are_those_of_all(fans, monkeypatch):
    table = curve(*fans, counts=())
    monkeypatch.setattr(module, "SCORES_TILE_SIZE", 7)
    assert curve(*fans, counts=()) == table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_draws": 0}, "num_draws and counts must be at least 1, got 0"),
        ({"counts": (3, -1)}, "num_draws and counts must be at least 1, got -1"),
        ({"queries": np.ones((0, 6)), "query_labels": np.ones(0, int)}, "must be at least 1, got 0"),
        ({"query_labels": np.ones(3, int)}, "labels of the queries must have the same length"),
        ({"reference_labels": np.ones(3, int)}, "labels of the references must have the same length"),
    ],
)
def test_a_curve_of_nothing_is_refused(fans, changes, message):
    names = ("queries", "query_labels", "references", "reference_labels")
    with pytest.raises(ValueError, match=message):
        curve(**{**dict(zip(names, fans, strict=True)), **changes})
