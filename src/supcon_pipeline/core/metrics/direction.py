"""Which way a metric is better."""

import math
from collections.abc import Mapping

from supcon_pipeline.core.messages import InputError

LOWER_IS_BETTER = frozenset({"log_loss"})


def score(metrics: Mapping[str, float], metric: str) -> float:
    """The value of a metric, turned so that up is better; what is no number is worse than any.

    Raises:
        InputError: where the metric is not among those measured.
    """
    if metric not in metrics:
        raise InputError(f"checkpoints.metric must be one of {', '.join(metrics)}, got {metric!r}")
    value = -metrics[metric] if metric in LOWER_IS_BETTER else metrics[metric]
    # NaN is neither above nor below anything: what sorts by it, or takes the largest, goes astray.
    return -math.inf if math.isnan(value) else value
