"""What intervals are worth where test images of some classes are few."""

import numpy as np
import pytest

from supcon_pipeline.core.metrics.classification import image_outcomes
from supcon_pipeline.core.metrics.intervals import bootstrap_intervals

NAMES = ("balanced_accuracy", "macro_f1")


def within_classes(labels, rng):
    """A resample with as many images of each class."""
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.choice(places, len(places)) for places in rows])


def coverage(counts, recalls, num_trials):
    """How often intervals hold the truth: those of images drawn among all, and within classes."""
    counts, recalls, rng = np.array(counts), np.array(recalls), np.random.default_rng(0)
    shares = counts / counts.sum()
    confusion = (1 - recalls)[:, None] * shares / (1 - shares)[:, None]
    np.fill_diagonal(confusion, recalls)
    f1 = 2 * shares * recalls / (shares + shares @ confusion)
    truth, labels = [recalls.mean(), f1.mean()], np.repeat(np.arange(len(counts)), counts)
    held = np.zeros((2, 2))
    for seed in range(num_trials):
        predicted = np.array([rng.choice(len(counts), p=confusion[label]) for label in labels])
        outcomes = image_outcomes(np.eye(len(counts))[predicted], labels)
        found = bootstrap_intervals(outcomes.metrics, len(labels), 100, seed)
        draws = [outcomes.metrics(within_classes(labels, rng)) for _ in range(100)]
        stratified = [np.quantile([draw[name] for draw in draws], [0.025, 0.975]) for name in NAMES]
        for row, intervals in enumerate(([found[name] for name in NAMES], stratified)):
            held[row] += [low <= true <= high for (low, high), true in zip(intervals, truth, strict=True)]
    return held / num_trials


def test_intervals_over_classes_of_a_single_image_are_wide_and_hold_the_truth():
    among_all, within = coverage([97, 1, 1, 1], [0.98, 0.1, 0.1, 0.1], 40)
    assert among_all.min() >= 0.8
    # One image has but one outcome: drawn within classes, it is certain, and the truth is missed.
    assert within.max() <= 0.2


@pytest.mark.parametrize("counts", [[100, 8, 8, 8, 8, 8], [100, 30, 30, 30]])
def test_intervals_over_classes_of_more_images_hold_the_truth(counts):
    among_all, _ = coverage(counts, [0.9] + [0.6] * (len(counts) - 1), 40)
    assert among_all.min() >= 0.85
