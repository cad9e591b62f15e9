import statistics

import pytest
from benchmarks.seeds import aggregate, headline_metrics

METRICS = {
    "run_id": "seed-0",
    "num_images": 359,
    "checkpoint": {"encoder": {"parameters": {"lr": 0.1}}},
    "embedding": {"precision_at_1": 0.9, "intervals": {"precision_at_1": [0.8, 1.0]}},
    "classifier": {
        "accuracy": 0.8,
        "calibrated": {"log_loss": 0.2, "reliability": {"accuracy": [0.5]}},
        "per_class": {"cat": {"f1": 0.7}},
        "confusion_matrix": [[1, 0], [0, 1]],
    },
    "baseline": {"classifier": {"accuracy": 0.6}},
}


def test_numbers_of_a_metrics_file_have_dotted_names():
    assert dict(headline_metrics(METRICS)) == {
        "embedding.precision_at_1": 0.9,
        "classifier.accuracy": 0.8,
        "classifier.calibrated.log_loss": 0.2,
        "baseline.classifier.accuracy": 0.6,
    }


def test_three_seeds_have_a_mean_and_a_standard_deviation_as_by_hand():
    rows = [{"accuracy": 0.5}, {"accuracy": 0.6}, {"accuracy": 0.7}]
    assert aggregate(rows) == {
        "accuracy": {"values": [0.5, 0.6, 0.7], "mean": pytest.approx(0.6), "stdev": pytest.approx(0.1)}
    }
    assert aggregate(rows[::-1])["accuracy"]["stdev"] == pytest.approx(statistics.stdev([0.5, 0.6, 0.7]))


def test_one_seed_has_no_standard_deviation():
    assert aggregate([{"accuracy": 0.5}])["accuracy"] == {"values": [0.5], "mean": 0.5, "stdev": None}


def test_a_metric_that_a_seed_has_not_is_left_out():
    assert list(aggregate([{"accuracy": 0.5, "ami": 0.1}, {"accuracy": 0.5}])) == ["accuracy"]
