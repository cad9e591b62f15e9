"""How much better a model is than another on the same images, and how surely."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

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
    gains = {
        name: np.asarray(column, dtype=np.float64) - np.asarray(others[name], dtype=np.float64)
        for name, column in values.items()
        if name in others
    }
    # Metrics of the same images share their resamples.
    alike: dict[bytes, dict[str, Float[np.ndarray, " n"]]] = {}
    for name, gain in gains.items():
        alike.setdefault(np.isnan(gain).tobytes(), {})[name] = gain
    means: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for columns in alike.values():
        is_scored = ~np.isnan(next(iter(columns.values())))
        scored = {name: column[is_scored] for name, column in columns.items()}
        means |= {name: float(column.mean()) for name, column in scored.items()}
        intervals |= (
            mean_intervals(scored, num_resamples, seed)
            if labels is None
            else class_intervals(scored, labels[is_scored], num_resamples, seed)
        )
    return {**means, "intervals": intervals}
