"""Whether higher or lower is better for a metric."""

import math
from collections.abc import Mapping

from supcon_pipeline.core.messages import InputError, suggest

LOWER_IS_BETTER = frozenset({"log_loss"})


def score(metrics: Mapping[str, float], metric: str) -> float:
    """The value of a metric, negated if lower is better, so that higher is; NaN is worse than any number.

    Raises:
        InputError: if the metric is not among those measured.
    """
    if metric not in metrics:
        raise InputError(
            f"checkpoints.metric must be one that is measured, got {metric!r}; {suggest(metric, metrics)}"
        )
    value = -metrics[metric] if metric in LOWER_IS_BETTER else metrics[metric]
    # NaN is neither above nor below anything, which breaks sorting and taking the largest.
    return -math.inf if math.isnan(value) else value
