import numpy as np
import pytest
from scipy import stats

from supcon_pipeline.core.metrics.gains import paired_gains
from supcon_pipeline.core.metrics.intervals import mean_intervals


@pytest.fixture
def scores(rng):
    """Two models that find the same images hard; the first is better by 0.05."""
    difficulty = rng.normal(size=2000)
    return {"score": difficulty + 0.05 + 0.2 * rng.normal(size=2000)}, {"score": difficulty}


def test_the_interval_of_a_gain_is_that_of_the_paired_t_test(scores):
    gains = paired_gains(*scores, labels=None, num_resamples=2000, seed=0)
    expected = stats.ttest_rel(scores[0]["score"], scores[1]["score"])
    assert gains["score"] == pytest.approx(np.mean(scores[0]["score"] - scores[1]["score"]))
    theirs = expected.confidence_interval(0.95)
    assert gains["intervals"]["score"] == pytest.approx([theirs.low, theirs.high], abs=0.1 * gains["score"])


def test_a_gain_may_be_certain_where_the_two_intervals_overlap(scores):
    (low, _), (_, high) = (mean_intervals(model, 500, 0)["score"] for model in scores)
    assert low < high
    assert paired_gains(*scores, labels=None, num_resamples=500, seed=0)["intervals"]["score"][0] > 0


def test_a_model_gains_nothing_over_itself(scores):
    gains = paired_gains(scores[0], scores[0], labels=None, num_resamples=50, seed=0)
    assert gains == {"score": 0, "intervals": {"score": [0, 0]}}


def test_an_interval_over_classes_is_wider_where_a_class_gains_as_a_whole(rng):
    labels = np.repeat(np.arange(20), 50)
    better = 0.1 + 0.3 * rng.normal(size=20)[labels] + 0.1 * rng.normal(size=1000)
    widths = []
    for classes in (None, labels):
        gain = paired_gains({"score": better}, {"score": np.zeros(1000)}, classes, 500, 0)
        low, high = gain["intervals"]["score"]
        widths.append(high - low)
    assert widths[1] > 4 * widths[0]


def test_images_that_cannot_be_scored_and_metrics_of_one_model_are_left_out():
    values = {"map": np.array([0.5, np.nan, 1.0]), "right": np.array([True, False, True]), "own": np.ones(3)}
    others = {"map": np.array([0.25, np.nan, 1.0]), "right": np.array([False, False, True])}
    gains = paired_gains(values, others, np.array([0, 1, 1]), 50, 0)
    assert gains.keys() == {"map", "right", "intervals"}
    assert gains["map"] == 0.125
    assert gains["right"] == pytest.approx(1 / 3)


def test_models_scored_on_other_images_are_a_bug():
    with pytest.raises(ValueError, match="broadcast"):
        paired_gains({"score": np.ones(3)}, {"score": np.ones(2)}, None, 10, 0)
