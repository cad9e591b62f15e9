import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.sparse import coo_array
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics
from torch.nn import functional

from supcon_pipeline.core.metrics import calibration
from supcon_pipeline.core.metrics.calibration import (
    CALIBRATED,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from supcon_pipeline.core.metrics.classification import (
    accuracy,
    classification_metrics,
    confused_pairs,
    image_outcomes,
    unpack_confusion,
    without_tables,
)


def score(logits, labels, validation=None, num_resamples=20):
    names = [f"class {index}" for index in range(logits.shape[1])]
    validation_logits, validation_labels = validation or (logits, labels)
    return classification_metrics(
        logits, labels, validation_logits, validation_labels, names, num_resamples, seed=0
    )


def saying(predicted, num_classes):
    """Logits of a classifier that says these classes."""
    return 3.0 * np.eye(num_classes)[predicted]


@pytest.fixture
def classified(rng):
    """Eight classes, of which the last two have no image, classified with errors."""
    labels = rng.integers(0, 6, 200)
    return 2 * np.eye(8)[labels] + 1.5 * rng.normal(size=(200, 8)), labels


def test_counts_of_a_small_case_are_as_by_hand():
    # Class a: 2 right of 3, 1 wrongly said; class b: 1 right of 2, 1 wrongly said; class c is nowhere.
    scores = score(saying([0, 0, 1, 1, 0], 3), np.array([0, 0, 0, 1, 1]))
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    cells = {"label": [0, 0, 1, 1], "predicted": [0, 1, 0, 1], "count": [2, 1, 1, 1]}
    assert scores["confusion_matrix"] == cells
    assert unpack_confusion(cells, 3).toarray().tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert scores["per_class"]["class 1"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    )
    assert scores["per_class"]["class 2"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert "top_5_accuracy" not in scores


def test_headline_numbers_are_those_of_scikit_learn(classified):
    logits, labels = classified
    scores, predicted, probabilities = score(logits, labels), logits.argmax(axis=1), softmax(logits, axis=1)
    classes = np.arange(8)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "top_5_accuracy": sklearn_metrics.top_k_accuracy_score(labels, logits, k=5, labels=classes),
        "balanced_accuracy": sklearn_metrics.recall_score(
            labels, predicted, labels=np.arange(6), average="macro"
        ),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0.0),
        "log_loss": sklearn_metrics.log_loss(labels, probabilities, labels=classes),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_tables_are_those_of_a_slow_loop(classified):
    logits, labels = classified
    scores, matrix = score(logits, labels), [[0] * 8 for _ in range(8)]
    for label, row in zip(labels, logits, strict=True):
        matrix[label][row.argmax()] += 1
    assert unpack_confusion(scores["confusion_matrix"], 8).toarray().tolist() == matrix
    for index, values in enumerate(scores["per_class"].values()):
        said, support = sum(row[index] for row in matrix), sum(matrix[index])
        assert values["support"] == support
        assert values["precision"] == pytest.approx(matrix[index][index] / said if said else 0)
        assert values["recall"] == pytest.approx(matrix[index][index] / support if support else 0)


def test_metrics_of_a_resample_count_a_repeated_image_twice(classified):
    logits, labels = classified
    rows = np.array([3, 3, 3, 8, 21, 40])
    resampled = image_outcomes(logits, labels).metrics(rows)
    expected = score(logits[rows], labels[rows])
    assert resampled == pytest.approx({name: expected[name] for name in resampled})


def test_intervals_hold_their_numbers_and_narrow_with_more_images(classified):
    logits, labels = classified
    few, many = score(logits[:40], labels[:40], num_resamples=200), score(logits, labels, num_resamples=200)
    names = ["accuracy", "top_5_accuracy", "balanced_accuracy", "macro_f1", *CALIBRATED]
    assert list(many["intervals"]) == names
    assert list(many["calibrated"]["intervals"]) == list(CALIBRATED)
    pairs = [(few, many, name) for name in names]
    pairs += [(few["calibrated"], many["calibrated"], name) for name in CALIBRATED]
    for of_few, of_many, name in pairs:
        low, high = of_many["intervals"][name]
        assert low <= of_many[name] <= high
        assert high - low < of_few["intervals"][name][1] - of_few["intervals"][name][0]


def test_the_interval_of_the_calibration_error_holds_the_true_one_about_as_often_as_it_says(rng):
    # Confidences are 0.03 too high: with 500 images, chance makes the error look larger still.
    held, overstated, num_trials = 0, 0, 60
    for _ in range(num_trials):
        confidence = rng.uniform(0.6, 1, 500)
        is_right = rng.random(500) < confidence - 0.03
        logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
        scores = score(logits, np.where(is_right, 0, 1), num_resamples=60)
        low, high = scores["intervals"]["expected_calibration_error"]
        held += low <= 0.03 <= high
        overstated += scores["expected_calibration_error"] > 0.03
    assert held >= 0.75 * num_trials
    assert overstated >= 0.75 * num_trials


def test_a_classifier_without_a_mistake_has_a_macro_f1_of_one_in_every_resample():
    # Two images of each of 50 classes: a resample lacks many of them.
    labels = np.repeat(np.arange(50), 2)
    scores = score(saying(labels, 50), labels)
    assert scores["macro_f1"] == 1
    assert scores["intervals"]["macro_f1"] == [1, 1]


def test_a_class_without_images_that_is_predicted_counts_as_zero_in_macro_f1():
    scores = score(saying([0, 0, 2], 3), np.array([0, 0, 0]))
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 0) / 2)


@pytest.mark.parametrize("tile_size", [1, 8, 50, 10**6])
def test_the_outcome_of_each_image_is_the_same_for_any_tile(classified, tile_size):
    outcomes, whole = (image_outcomes(*classified, 1.7, size) for size in (tile_size, 1600))
    for name in ("predicted", "losses", "confidence", "is_in_top_5"):
        np.testing.assert_array_equal(getattr(outcomes, name), getattr(whole, name))
    probabilities = softmax(classified[0] / 1.7, axis=1)
    np.testing.assert_allclose(whole.confidence, probabilities.max(axis=1))
    np.testing.assert_allclose(whole.losses, -np.log(probabilities[np.arange(200), classified[1]]))


def test_many_classes_are_scored_in_the_memory_of_a_tile(rng, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(calibration, "TILE_SIZE", 2**16)
    logits, labels = rng.normal(size=(2000, 500)).astype(np.float32), rng.integers(0, 500, 2000)
    image_outcomes(logits[:10], labels[:10])
    tracemalloc.start()
    fit_temperature(logits, labels)
    image_outcomes(logits, labels, tile_size=2**16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As float64, all logits would take 8 MB.
    assert peak < 4_000_000


def test_a_label_among_the_first_five_counts_and_ties_count_against_it():
    logits = np.zeros((8, 8))
    logits[:, 7] = 1
    # Six others are as likely as any label but the last.
    assert image_outcomes(logits, np.arange(8)).is_in_top_5.tolist() == [False] * 7 + [True]
    logits[:, 3:6] = 0.5
    # Three others and the last come before the rest, of which there are four.
    assert image_outcomes(logits, np.arange(8)).is_in_top_5.tolist() == [False] * 3 + [True] * 3 + [
        False,
        True,
    ]


def test_a_predicted_label_is_among_the_first_five_whatever_is_as_likely():
    outcomes = image_outcomes(np.zeros((8, 8)), np.arange(8))
    assert outcomes.predicted.tolist() == [0] * 8
    assert outcomes.is_in_top_5.tolist() == [True] + [False] * 7


def test_the_order_of_the_classes_helps_no_class_without_a_vote(rng):
    # As k-NN gives it: three of twenty classes have votes, all others the same floor.
    labels, logits = rng.integers(0, 20, 300), np.full((300, 20), -16.0)
    for row in logits:
        row[rng.choice(20, 3, replace=False)] = np.log(rng.dirichlet(np.ones(3)))
    expected = score(logits, labels)["top_5_accuracy"]
    has_vote = logits[np.arange(300), labels] > -16
    assert expected == has_vote.mean()
    for renamed in (np.arange(20)[::-1], rng.permutation(20)):
        assert score(logits[:, np.argsort(renamed)], renamed[labels])["top_5_accuracy"] == expected


def test_renaming_the_classes_changes_no_total(classified, rng):
    logits, labels = classified
    renamed = rng.permutation(8)
    before, after = score(logits, labels), score(logits[:, np.argsort(renamed)], renamed[labels])
    for name in ("accuracy", "top_5_accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        assert after[name] == pytest.approx(before[name])
    assert after["calibrated"]["temperature"] == pytest.approx(before["calibrated"]["temperature"])


def test_a_constant_on_all_logits_of_an_image_changes_nothing(classified, rng):
    logits, labels = classified
    shifted = score(logits + rng.normal(size=(200, 1)), labels)
    assert shifted["log_loss"] == pytest.approx(score(logits, labels)["log_loss"])


def test_the_calibration_error_of_four_images_is_as_by_hand():
    # Two images with a confidence of 0.9, one of them right; two with 0.6, both right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
    outcomes = image_outcomes(np.log(probabilities), np.array([0, 1, 1, 0]))
    assert reliability_bins(outcomes.confidence, outcomes.is_right) == {
        "confidence": pytest.approx([0.6, 0.9]),
        "accuracy": [1.0, 0.5],
        "count": [2, 2],
    }
    error = expected_calibration_error(outcomes.confidence, outcomes.is_right)
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)


def test_the_calibration_error_is_that_of_a_slow_loop(classified):
    logits, labels = classified
    probabilities = softmax(logits, axis=1)
    error = 0.0
    for step in range(15):
        inside = [
            index for index, row in enumerate(probabilities) if step / 15 < row.max() <= (step + 1) / 15
        ]
        if inside:
            confidence = np.mean([probabilities[index].max() for index in inside])
            share = np.mean([probabilities[index].argmax() == labels[index] for index in inside])
            error += len(inside) / 200 * abs(share - confidence)
    assert score(logits, labels)["expected_calibration_error"] == pytest.approx(error)


def test_certainty_falls_into_the_last_bin():
    bins = reliability_bins(np.array([1.0]), np.array([True]))
    assert bins == {"confidence": [1.0], "accuracy": [1.0], "count": [1]}


def test_the_temperature_undoes_what_the_logits_were_multiplied_by(rng):
    logits = rng.normal(size=(4000, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.1)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * fit_temperature(logits, labels), rel=5e-3)


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.9, 1, 1.1, 3])
def test_the_temperature_is_the_nearest_to_one_between_two_fits_of_torch(classified, factor):
    logits, labels = torch.from_numpy(factor * classified[0]), torch.from_numpy(classified[1])

    def lowest(smoothing):
        def cross_entropy(temperature):
            return float(functional.cross_entropy(logits / temperature, labels, label_smoothing=smoothing))

        return minimize_scalar(cross_entropy, bounds=(0.05, 20), method="bounded").x

    expected = sorted([lowest(0.0), 1.0, lowest(1 / 201)])[1]
    assert fit_temperature(factor * classified[0], classified[1]) == pytest.approx(expected, rel=1e-3)


def test_the_temperature_of_images_that_are_all_right_is_as_by_hand():
    # Of four images each label keeps 4/5 and its quarter of the rest, the other classes 1/20 each.
    labels = np.arange(4)
    expected = 1.5 / math.log((4 / 5 + 1 / 20) / (1 / 20))
    assert fit_temperature(saying(labels, 4) / 2, labels) == pytest.approx(expected, rel=1e-3)
    # More certain than that, they bear out neither more certainty nor less.
    assert fit_temperature(5 * saying(labels, 4), labels) == 1


@pytest.mark.parametrize("margin", [4, 6, 8, 12, 20])
def test_validation_without_a_mistake_makes_the_probabilities_of_other_images_no_worse(rng, margin):
    labels = rng.integers(0, 10, 400)
    logits = margin * np.eye(10)[labels] + rng.normal(size=(400, 10))
    mistaken = rng.choice(400, 8, replace=False)
    logits[mistaken] = 2 * np.eye(10)[(labels[mistaken] + 1) % 10] + rng.normal(size=(8, 10))
    is_right = logits.argmax(axis=1) == labels
    validation = logits[is_right][:200], labels[is_right][:200]
    scores = score(logits, labels, validation)
    assert scores["accuracy"] < 1
    # Worse by a hair where more images are mistaken than the smoothing takes into account.
    assert scores["calibrated"]["log_loss"] <= 1.01 * scores["log_loss"]


def test_many_images_with_mistakes_have_nearly_the_temperature_of_the_lowest_log_loss(rng):
    labels = rng.integers(0, 8, 4000)
    logits = 2 * np.eye(8)[labels] + 1.5 * rng.normal(size=(4000, 8))

    def log_loss(temperature):
        return sklearn_metrics.log_loss(labels, softmax(logits / temperature, axis=1), labels=np.arange(8))

    lowest = minimize_scalar(log_loss, bounds=(0.1, 10), method="bounded").x
    assert fit_temperature(logits, labels) == pytest.approx(lowest, rel=0.005)


def test_the_temperature_comes_from_the_validation_images_alone(classified):
    logits, labels = classified
    scores = score(5 * logits[:100], labels[:100], (5 * logits[100:], labels[100:]))
    calibrated = scores["calibrated"]
    assert calibrated["temperature"] == fit_temperature(5 * logits[100:], labels[100:])
    assert calibrated["log_loss"] < scores["log_loss"]
    assert calibrated["expected_calibration_error"] < scores["expected_calibration_error"]
    assert sum(calibrated["reliability"]["count"]) == 100


def test_logits_that_are_far_too_small_or_large_get_an_end_of_the_range():
    labels = np.arange(4)
    assert fit_temperature(saying(labels, 4) / 100, labels) == pytest.approx(0.05, abs=0.001)
    assert fit_temperature(100 * saying(labels[::-1], 4), labels) == pytest.approx(20, abs=0.1)


def test_without_its_tables_the_metrics_are_numbers_and_intervals(classified):
    scores = score(*classified)
    left = without_tables(scores)
    assert scores.keys() - left.keys() == {"reliability", "per_class", "confusion_matrix"}
    assert scores["calibrated"].keys() - left["calibrated"].keys() == {"reliability"}
    assert all(scores[name] == value for name, value in left.items() if name != "calibrated")


def test_confused_pairs_are_as_by_hand_most_frequent_first():
    pairs = confused_pairs([[8, 2, 0], [3, 1, 2], [0, 0, 0]])
    assert {name: column.tolist() for name, column in pairs.items()} == {
        # Two mistakes are a third of the images of class 1, and a fifth of those of class 0.
        "label": [1, 1, 0],
        "predicted": [0, 2, 1],
        "count": [3, 2, 2],
        "share": pytest.approx([3 / 6, 2 / 6, 2 / 10]),
    }


def test_confused_pairs_of_a_sparse_matrix_are_those_of_the_dense_one(rng):
    matrix = rng.integers(0, 4, (9, 9))
    dense, sparse = confused_pairs(matrix), confused_pairs(coo_array(matrix))
    assert all(np.array_equal(dense[name], sparse[name]) for name in dense)


def test_the_tables_of_many_classes_grow_with_the_images_and_the_classes_alone(rng):
    labels = np.arange(600) % 300
    scores = score(rng.normal(size=(600, 300)), labels)
    assert len(scores["confusion_matrix"]["count"]) <= 600
    assert sum(scores["confusion_matrix"]["count"]) == 600
    assert len(json.dumps(scores, allow_nan=False, indent=2)) < 120_000


def test_a_classifier_without_mistakes_confuses_nothing():
    assert all(len(column) == 0 for column in confused_pairs(np.diag([3, 2])).values())


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), [0, 1, 1], r"one row per label and one column per class \(3, 3\), got \(2, 3\)"),
        (np.zeros((0, 3)), [], "labels must hold at least one image, got none"),
        (np.zeros((2, 3)), [0, 3], "labels must be from 0 to 2, got 3; name every class"),
        (np.zeros((2, 3)), [-1, 2], "labels must be from 0 to 2, got -1"),
        (np.array([[0.0, np.nan, 0.0]]), [0], "logits must be finite"),
    ],
)
def test_logits_that_do_not_fit_are_refused(logits, labels, message):
    labels, fitting = np.array(labels, dtype=int), (np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match=message):
        score(logits, labels, fitting)
    with pytest.raises(ValueError, match=message):
        score(*fitting, (logits, labels))


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
