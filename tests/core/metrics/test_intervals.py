import numpy as np
import pytest

from supcon_pipeline.core.metrics.intervals import (
    bootstrap_intervals,
    class_intervals,
    mean_intervals,
    mirrored_interval,
    pooled_interval,
)


def test_the_interval_of_a_mean_is_that_of_the_normal_law(rng):
    values = rng.normal(3, 2, 4000)
    low, high = mean_intervals({"mean": values}, num_resamples=2000, seed=0)["mean"]
    error = values.std() / np.sqrt(4000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_intervals_are_those_of_a_slow_loop(rng):
    values = {"right": rng.integers(0, 2, 20).astype(bool), "loss": rng.uniform(size=20)}
    draws = np.random.default_rng(7)
    means = [
        [float(np.mean(values[name][rows])) for name in values] for rows in draws.integers(20, size=(50, 20))
    ]
    intervals = mean_intervals(values, num_resamples=50, seed=7)
    for column, name in zip(np.transpose(means), values, strict=True):
        assert intervals[name] == pytest.approx(np.percentile(column, [2.5, 97.5]).tolist())


def test_a_lower_level_gives_a_narrower_interval(rng):
    values = rng.normal(size=50)

    def interval(level):
        return bootstrap_intervals(lambda rows: {"max": values[rows].max()}, 50, 100, 0, level)["max"]

    wide, narrow = interval(0.99), interval(0.5)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
    assert interval(0.5) == narrow


def test_intervals_over_classes_are_those_of_a_slow_loop(rng):
    labels = rng.permutation(np.repeat([3, 5, 8, 9], [1, 4, 6, 2]))
    values = {"right": rng.integers(0, 2, 13).astype(bool), "rank": rng.uniform(size=13)}
    draws, means = np.random.default_rng(7), []
    for drawn in draws.integers(4, size=(50, 4)):
        images = np.concatenate([np.flatnonzero(labels == [3, 5, 8, 9][place]) for place in drawn])
        means.append([np.mean(values[name][images]) for name in values])
    intervals = class_intervals(values, labels, num_resamples=50, seed=7)
    for column, name in zip(np.transpose(means), values, strict=True):
        assert intervals[name] == pytest.approx(np.percentile(column, [2.5, 97.5]).tolist())


def test_intervals_over_classes_hold_the_mean_of_all_classes_where_those_over_images_miss_it(rng):
    labels = np.repeat(np.arange(40), 12)
    held = {class_intervals: 0, mean_intervals: 0}
    for seed in range(120):
        # The mean of a class varies more than its images do: what is drawn is classes, not images.
        values = {"mean": rng.normal(0.6, 0.2, 40)[labels] + rng.normal(0, 0.1, 480)}
        for intervals, own in ((class_intervals, (labels,)), (mean_intervals, ())):
            low, high = intervals(values, *own, num_resamples=150, seed=seed)["mean"]
            held[intervals] += low <= 0.6 <= high
    assert 0.88 <= held[class_intervals] / 120 <= 0.99
    assert held[mean_intervals] / 120 < 0.6


def test_with_one_image_per_class_intervals_over_classes_are_those_over_images(rng):
    values = {"share": rng.uniform(size=30)}
    assert class_intervals(values, np.arange(30), 40, 5)["share"] == pytest.approx(
        mean_intervals(values, 40, 5)["share"]
    )


def test_the_interval_of_one_draw_is_that_of_a_slow_loop_over_draws_and_images(rng):
    values, draws = rng.integers(0, 2, (3, 20)).astype(bool), np.random.default_rng(7)
    means = [np.mean([values[turn % 3][row] for row in draws.integers(20, size=20)]) for turn in range(50)]
    assert pooled_interval(values, 50, 7) == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist())


def test_the_interval_of_one_draw_spans_draws_that_differ():
    assert pooled_interval(np.repeat([[0.25], [0.75]], 9, axis=1), 10, 0) == [0.25, 0.75]


def test_equal_values_have_an_interval_without_width():
    assert mean_intervals({"share": np.full(9, 0.25)}, 10, 0) == {"share": [0.25, 0.25]}


@pytest.mark.parametrize(
    ("num_images", "num_resamples", "level", "message"),
    [
        (0, 10, 0.95, "num_images and num_resamples must be at least 1, got 0"),
        (5, 0, 0.95, "num_images and num_resamples must be at least 1, got 0"),
        (5, 10, 1.0, "level must be between 0 and 1, got 1.0"),
    ],
)
def test_intervals_of_nothing_are_refused(num_images, num_resamples, level, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(lambda _: {"one": 1.0}, num_images, num_resamples, 0, level)
    with pytest.raises(ValueError, match="values must hold at least one name, got none"):
        mean_intervals({}, 10, 0)
    with pytest.raises(ValueError, match="values must hold at least one name, got none"):
        class_intervals({}, [], 10, 0)
    with pytest.raises(ValueError, match=r"labels must have one class per value \(2\), got 3"):
        class_intervals({"share": np.zeros(2)}, np.zeros(3), 10, 0)


@pytest.mark.parametrize(
    ("resamples", "expected"),
    [
        ([0.25, 0.875], [0.125, 0.75]),  # about the number: as far below it as they were above
        ([0.5, 0.625], [0.375, 0.5]),  # none below it
        ([0.625, 0.75], [0.25, 0.5]),  # all above it: it ends at the number
        ([0.375, 1.5], [0.0, 0.625]),  # nothing is below 0
    ],
)
def test_the_mirrored_interval_of_one_half_is_as_by_hand(resamples, expected):
    assert mirrored_interval(0.5, resamples) == expected


def test_resamples_with_nothing_to_measure_are_left_out():
    def share_of_first(rows):
        return {"mean": float(np.mean(rows))} if (rows > 0).all() else {}

    (low, high) = bootstrap_intervals(share_of_first, 3, 200, 0)["mean"]
    assert 1 <= low < high <= 2
    assert bootstrap_intervals(lambda _: {}, 3, 10, 0) == {}
