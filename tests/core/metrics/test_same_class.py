import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from supcon_pipeline.core.metrics.same_class import lowest_rate, unknown_report, verification_report

BOOTSTRAP = {"num_resamples": 50, "seed": 0}


@pytest.fixture
def classes(rng):
    """Rows of forty classes of five images, half of them for validation."""
    labels = np.repeat(np.arange(40), 5)
    rows = rng.normal(size=(40, 8))[labels] + 0.6 * rng.normal(size=(200, 8))
    return rows.astype(np.float32), labels, np.arange(100), np.arange(100, 200), np.arange(200)


def pairs_of(rows, labels):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), 1)
    return (unit[first] * unit[second]).sum(axis=1), labels[first] == labels[second]


def test_validation_chooses_the_threshold_and_test_tries_it(classes):
    rows, labels, validation, test, copies = classes
    report = verification_report(rows, labels, validation, test, copies, 0.05, (0.1, 0.01), **BOOTSTRAP)
    similarity, is_match = pairs_of(rows[validation], labels[validation])
    # The highest share of false matches that is within the rate.
    assert np.mean(similarity[~is_match] >= report["threshold"]) == pytest.approx(0.05, abs=1e-3)
    assert report["validation"]["fmr"] <= 0.05
    similarity, is_match = pairs_of(rows[test], labels[test])
    is_accepted = similarity >= report["threshold"]
    assert report["test"]["fmr"] == pytest.approx(is_accepted[~is_match].mean())
    assert report["test"]["fnmr"] == pytest.approx(1 - is_accepted[is_match].mean())
    assert report["auc"] == pytest.approx(roc_auc_score(is_match, similarity), abs=1e-6)
    low, high = report["intervals"]["auc"]
    assert low <= report["auc"] <= high


@pytest.mark.parametrize(
    ("labels", "copies"),
    [([0, 1, 2, 3], [0, 1, 2, 3]), ([0, 0, 0, 0], [0, 1, 2, 3]), ([0, 0, 1, 1], [7, 7, 7, 7])],
)
def test_without_two_kinds_of_pairs_there_is_no_report(labels, copies):
    rows, parts = np.eye(4, dtype=np.float32), (np.arange(4), np.arange(4), np.array(copies))
    assert verification_report(rows, np.array(labels), *parts, 0.1, (0.1,), **BOOTSTRAP) == {}


def test_each_class_weighs_the_same_among_the_unknown(rng):
    labels = np.array([0, 0, 1, 1, 2, 3, 3, 3, 3, 3])
    rows = rng.normal(size=(10, 4)).astype(np.float32)
    validation, test = np.arange(5), np.arange(5, 10)
    parts = (rows, np.where(labels == 3, [3, 3, 3, 3, 3, 3, 3, 3, 3, 4], labels), validation, test)
    report = unknown_report(*parts, np.arange(10), 0.5, **BOOTSTRAP)
    # Four images of one class and one of another.
    assert report["false_accept_rate"] in {share / 8 + other / 2 for share in range(5) for other in (0, 1)}


def test_the_threshold_of_validation_tells_unknown_from_known_as_a_slow_loop_does(classes):
    rows, labels, validation, test, copies = classes
    report = unknown_report(rows, labels, validation, test, copies, 0.1, **BOOTSTRAP)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    accepted, rejected = [], []
    for row in test:
        others = [other for other in test if other != row]
        nearest_other_class = max(unit[row] @ unit[other] for other in others if labels[other] != labels[row])
        accepted.append(nearest_other_class >= report["threshold"])
        rejected.append(max(unit[row] @ unit[other] for other in others) < report["threshold"])
    assert report["promised_false_accept_rate"] == 0.1
    # All classes have five images here.
    assert report["false_accept_rate"] == pytest.approx(np.mean(accepted))
    assert report["false_reject_rate"] == pytest.approx(np.mean(rejected))
    for name, (low, high) in report["intervals"].items():
        assert low <= report[name] <= high


def test_few_classes_can_promise_no_low_rate():
    assert lowest_rate(np.array([0, 0, 1, 2]), 0.05) == 1 / 4
    assert lowest_rate(np.arange(99), 0.05) == 0.05


def test_nothing_is_said_of_known_images_where_each_is_alone_in_its_class(rng):
    rows = rng.normal(size=(10, 4)).astype(np.float32)
    labels = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7])
    report = unknown_report(rows, labels, np.arange(5), np.arange(5, 10), np.arange(10), 0.5, **BOOTSTRAP)
    assert 0 <= report["false_accept_rate"] <= 1
    assert "false_reject_rate" not in report
    assert report["intervals"].keys() == {"false_accept_rate"}
