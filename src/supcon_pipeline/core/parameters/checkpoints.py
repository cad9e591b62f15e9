"""Parameters of checkpoints and early stopping."""

from typing import Literal

from supcon_pipeline.core.parameters.base import (
    Count,
    Parameters,
)


class CheckpointParameters(Parameters):
    """Which epochs are kept."""

    metric: str
    top_k: Count


class EarlyStoppingParameters(Parameters):
    """Early stopping: after `patience` validations without a better metric."""

    patience: Count


class ContrastiveCheckpointParameters(CheckpointParameters):
    """Which epochs of stage 1 are kept."""

    metric: Literal[
        "embedding.precision_at_1",
        "embedding.r_precision",
        "embedding.mean_average_precision_at_r",
        "embedding.ami",
        "embedding.nmi",
        "projection.precision_at_1",
        "projection.r_precision",
        "projection.mean_average_precision_at_r",
        "projection.ami",
        "projection.nmi",
    ]


class ClassifierCheckpointParameters(CheckpointParameters):
    """Which epochs of stage 2 and of the baseline are kept."""

    metric: Literal["accuracy", "log_loss"]
