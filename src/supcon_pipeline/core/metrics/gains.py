"""How much better a model is than another on the same images, and how surely."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from supcon_pipeline.core.metrics.intervals import class_intervals, mean_intervals


def paired_gains(
    values: Mapping[str, Shaped[np.ndarray, " n"]],
    others: Mapping[str, Shaped[np.ndarray, " n"]],
    labels: Int[np.ndarray, " n"] | None,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Mean differences of a model from another, image by image.

    An image that is hard is hard for both models. What they share cancels in the difference of each image,
    so its interval is narrower than the intervals of the two models say, side by side.

    Args:
        values: a value per image, by the name of the metric; NaN where the image cannot be scored.
        others: the same of the other model, for the same images. A metric that it lacks is left out.
        labels: the class of each image, for intervals over classes; None for intervals over images.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The difference by the name of the metric, and its 95 % interval in `intervals`.

    Raises:
        ValueError: if the models differ in number of images.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 8.3, of pairs; Davison and
        Hinkley 1997, section 3.8, for classes drawn whole.
    """
    gains: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for name in (name for name in values if name in others):
        gain = np.asarray(values[name], dtype=np.float64) - np.asarray(others[name], dtype=np.float64)
        is_scored = ~np.isnan(gain)
        column, drawn = {name: gain[is_scored]}, {"num_resamples": num_resamples, "seed": seed}
        gains[name] = float(column[name].mean())
        intervals |= (
            mean_intervals(column, **drawn)
            if labels is None
            else class_intervals(column, labels[is_scored], **drawn)
        )
    return {**gains, "intervals": intervals}
