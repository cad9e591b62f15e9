from itertools import combinations

import numpy as np
import pytest

from supcon_pipeline.core.metrics.verification import (
    count_pairs,
    error_rates,
    thin_curve,
    verification_metrics,
)
from supcon_pipeline.core.metrics.verification_intervals import verification_intervals


def draw_classes(rng, num_classes, num_images):
    """Images around the centres of their classes; some classes are wider than others."""
    labels = np.repeat(np.arange(num_classes), num_images)
    spread = rng.uniform(0.5, 2, num_classes)[labels, None]
    centers = rng.normal(size=(num_classes, 8))
    return centers[labels] + spread * rng.normal(size=(len(labels), 8)), labels


def auc_by_loop(pairs, thresholds, times):
    """The area under the curve where a pair counts once for each time its class was drawn."""
    fmr, tmr = [], []
    for threshold in thresholds:
        accepted, total = np.zeros(2), np.zeros(2)
        for cosine, one, other in pairs:
            weight = times[one] if one == other else times[one] + times[other] - 1
            total[int(one == other)] += weight
            accepted[int(one == other)] += weight * (cosine >= threshold - 1e-7)
        fmr.append(accepted[0] / total[0])
        tmr.append(accepted[1] / total[1])
    return np.trapezoid(tmr, np.maximum.accumulate(np.clip(fmr, 0, 1)))


@pytest.mark.parametrize("tile_size", [1, 10**6])
def test_intervals_of_verification_are_those_of_a_slow_loop_over_pairs(rng, tile_size):
    embeddings, labels = draw_classes(rng, 5, 4)
    rows, copies = np.delete(np.arange(20), [3, 11]), rng.integers(0, 15, 20)
    counts = count_pairs(embeddings, labels, rows, copies)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = [
        (unit[one] @ unit[other], labels[one], labels[other])
        for one, other in combinations(rows, 2)
        if copies[one] != copies[other]
    ]
    thresholds, draws = thin_curve(error_rates(counts)).thresholds, np.random.default_rng(7)
    found = [
        auc_by_loop(pairs, thresholds, np.bincount(drawn, minlength=5))
        for drawn in draws.integers(5, size=(20, 5))
    ]
    intervals = verification_intervals(
        embeddings, labels, rows, counts, (0.1,), 20, 7, copies=copies, tile_size=tile_size
    )
    assert intervals["auc"] == pytest.approx(np.quantile(found, [0.025, 0.975]).tolist(), abs=1e-9)


def test_intervals_of_verification_hold_the_metrics_of_all_classes():
    rng = np.random.default_rng(0)
    embeddings, labels = draw_classes(rng, 600, 4)
    metrics = verification_metrics(count_pairs(embeddings, labels, range(2400)), (0.1,))
    truth = {
        "auc": metrics["auc"],
        "equal_error_rate": metrics["equal_error_rate"],
        "fnmr_at_fmr_0.1": metrics["fnmr_at_fmr"][0]["fnmr"],
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(30):
        embeddings, labels = draw_classes(rng, 40, 3)
        counts = count_pairs(embeddings, labels, range(120))
        intervals = verification_intervals(embeddings, labels, range(120), counts, (0.1,), 100, seed)
        for name, (low, high) in intervals.items():
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 0.85 * 30


def test_a_collapsed_encoder_has_an_interval_at_chance(rng):
    embeddings, labels = np.tile(rng.normal(size=8), (30, 1)), np.arange(30) % 5
    counts = count_pairs(embeddings, labels, range(30))
    intervals = verification_intervals(embeddings, labels, range(30), counts, (), 10, 0)
    assert intervals == {"auc": [0.5, 0.5], "equal_error_rate": [0.5, 0.5]}


def test_separated_classes_have_an_interval_without_width():
    labels = np.repeat(np.arange(4), 3)
    embeddings = np.eye(4)[labels] + 1e-3 * np.arange(12)[:, None]
    counts = count_pairs(embeddings, labels, range(12))
    intervals = verification_intervals(embeddings, labels, range(12), counts, (0.5,), 10, 0)
    assert intervals == {"auc": [1, 1], "equal_error_rate": [0, 0], "fnmr_at_fmr_0.5": [0, 0]}


def test_resamples_without_a_pair_of_one_class_say_nothing_of_it():
    # A third of the resamples leave out the only class of several images.
    labels = np.array([0, 0, 0, 0, 1, 2, 3])
    embeddings = np.eye(4)[labels] + 1e-3 * np.arange(7)[:, None]
    counts = count_pairs(embeddings, labels, range(7))
    intervals = verification_intervals(embeddings, labels, range(7), counts, (0.5,), 100, 0)
    assert intervals == {"auc": [1, 1], "equal_error_rate": [0, 0], "fnmr_at_fmr_0.5": [0, 0]}
