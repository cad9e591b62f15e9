"""Which epochs are kept, and when there is no use in more of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from supcon_pipeline.core.metrics.direction import score
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.training.state import EpochRecord


class TopCheckpoints:
    """The best epochs by a metric, best first; the later wins a draw.

    Args:
        metric: one of the validation metrics.
        top_k: how many to keep, at least 1.
        metadata: what goes into every checkpoint beside epoch and metrics.
    """

    def __init__(self, metric: str, top_k: int, metadata: dict[str, Any]):
        self.metric, self.top_k, self.metadata = metric, top_k, metadata
        self.checkpoints: list[NamedTensors] = []

    def offer(self, record: EpochRecord) -> None:
        """Keep the epoch where it is among the best, and let go of the one that no longer is."""
        metadata = {**self.metadata, "epoch": record.epoch, "metrics": record.metrics}
        self.checkpoints.append(NamedTensors(record.tensors, metadata))
        self.checkpoints.sort(key=self._rank, reverse=True)
        del self.checkpoints[self.top_k :]

    def _rank(self, checkpoint: NamedTensors) -> tuple[float, int]:
        return score(checkpoint.metadata["metrics"], self.metric), checkpoint.metadata["epoch"]

    def state_dict(self) -> list[dict[str, Any]]:
        """The checkpoints as plain values."""
        return [{"tensors": part.tensors, "metadata": part.metadata} for part in self.checkpoints]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Take back what `state_dict` gave; the metadata of this training goes before that of the state."""
        self.checkpoints = [
            NamedTensors(dict(part["tensors"]), {**part["metadata"], **self.metadata}) for part in state
        ]


def should_stop(history: Sequence[Mapping[str, float]], metric: str, patience: int | None) -> bool:
    """Whether the metric has not risen above its best for `patience` validations; never without a patience.

    The history has a row for each validation.
    """
    if patience is None:
        return False
    # Before the first of them there is nothing to be above: NaN is no rise, even at first.
    scores = [-math.inf, *(score(row, metric) for row in history)]
    return len(scores) - 1 - scores.index(max(scores)) >= patience
