"""Uncertainty of metrics: bootstrap intervals over the images, or over the classes."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Int, Shaped

Statistic = Callable[[Int[np.ndarray, " n"]], Mapping[str, float]]


def bootstrap_intervals(
    statistic: Statistic, num_images: int, num_resamples: int, seed: int, level: float = 0.95
) -> dict[str, list[float]]:
    """Percentile intervals of metrics that are computed from images, as `[low, high]` by name.

    Args:
        statistic: computes the metrics by name from the indices of a resample, which may repeat; gives none
            where the resample has nothing to measure. Such resamples are left out.
        num_images: number of images; as many are drawn, with replacement, for each resample.
        num_resamples: number of resamples.
        seed: seed of the draws; the same seed gives the same intervals.
        level: share of the resamples inside an interval, between 0 and 1.

    Raises:
        ValueError: if there is no image or no resample, or the level is out of range.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    if num_images < 1 or num_resamples < 1:
        smallest = min(num_images, num_resamples)
        raise ValueError(f"num_images and num_resamples must be at least 1, got {smallest}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(num_images, size=num_images)) for _ in range(num_resamples)]
    draws, tail = [draw for draw in drawn if draw], (1 - level) / 2
    names = draws[0] if draws else ()
    return {name: np.quantile([draw[name] for draw in draws], [tail, 1 - tail]).tolist() for name in names}


def mean_intervals(
    values: Mapping[str, Shaped[np.ndarray, " n"]], num_resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % intervals of means over one value per image, as `[low, high]` by name.

    Raises:
        ValueError: as for `bootstrap_intervals`, and if there are no values.
    """
    if not values:
        raise ValueError("values must hold at least one name, got none")
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)

    def means(rows: Int[np.ndarray, " n"]) -> dict[str, float]:
        return dict(zip(values, table[rows].mean(axis=0), strict=True))

    return bootstrap_intervals(means, len(table), num_resamples, seed)


def class_intervals(
    values: Mapping[str, Shaped[np.ndarray, " n"]],
    labels: Int[np.ndarray, " n"],
    num_resamples: int,
    seed: int,
) -> dict[str, list[float]]:
    """95 % intervals of means over images, for classes that are a sample of all there could be.

    Each resample draws classes, with all their images: images of one class are found, or missed, together,
    and an interval over single images would be too narrow. It is still somewhat narrow for few classes, as
    that of any percentile bootstrap; 30 are enough.

    Args:
        values: one per image, by the name of the metric.
        labels: the class of each image.
        num_resamples: number of resamples.
        seed: seed of the draws; the same seed gives the same intervals.

    Returns:
        `[low, high]` by name.

    Raises:
        ValueError: as for `mean_intervals`, and if values and labels differ in number.

    Source:
        Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8: clusters are drawn
        whole, and images within them are not.
    """
    if not values:
        raise ValueError("values must hold at least one name, got none")
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()])
    if table.shape[1] != len(labels):
        raise ValueError(f"labels must have one class per value ({table.shape[1]}), got {len(labels)}")
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(classes, column) for column in table])

    def means(drawn: Int[np.ndarray, " classes"]) -> dict[str, float]:
        times = np.bincount(drawn, minlength=len(sizes))
        return dict(zip(values, sums @ times / (sizes @ times), strict=True))

    return bootstrap_intervals(means, len(sizes), num_resamples, seed)


def pooled_interval(values: Shaped[np.ndarray, "draws n"], num_resamples: int, seed: int) -> list[float]:
    """95 % interval of the mean of a single draw, over draws and images, as `[low, high]`.

    Each resample is of the images and of one draw, which take turns.

    Args:
        values: one per draw and image, the images in the same order.
        num_resamples: number of resamples.
        seed: seed of the resamples.

    Raises:
        ValueError: as for `bootstrap_intervals`.
    """
    turns = cycle(values)

    def mean(images: Int[np.ndarray, " n"]) -> dict[str, float]:
        return {"mean": next(turns)[images].mean()}

    return bootstrap_intervals(mean, values.shape[1], num_resamples, seed)["mean"]


def mirrored_interval(value: float, interval: Sequence[float]) -> list[float]:
    """The interval of a non-negative metric that resamples overestimate, as `[low, high]`.

    The metric is expected to exceed the true value by as much as the resamples exceed the metric, so their
    interval is mirrored at it. It is clipped at 0 and always contains the metric itself.

    Args:
        value: the metric of all images.
        interval: the interval of the resamples, from `bootstrap_intervals`.

    Source:
        Davison and Hinkley 1997, Bootstrap Methods and their Application, equation 5.6 (basic limits).
    """
    low, high = (2 * value - end for end in reversed(interval))
    return [max(0.0, min(value, low)), max(value, high)]
