"""The best checkpoints, and early stopping."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from supcon_pipeline.core.metrics.direction import score
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.training.state import EpochRecord


class TopCheckpoints:
    """The best epochs by a metric, best first; in a tie the later one wins.

    Where the start of a training is validated (epoch 0), no epoch below it is kept, and the start itself only
    while there is none better.

    Args:
        metric: name of a validation metric.
        top_k: how many to keep, at least 1.
        metadata: metadata of every checkpoint, besides its epoch and metrics.
    """

    def __init__(self, metric: str, top_k: int, metadata: dict[str, Any]):
        self.metric, self.top_k, self.metadata = metric, top_k, metadata
        self._start: NamedTensors | None = None
        self._trained: list[NamedTensors] = []

    @property
    def checkpoints(self) -> list[NamedTensors]:
        """What is kept so far."""
        return self._trained or ([self._start] if self._start else [])

    def offer(self, record: EpochRecord) -> None:
        """Keep the epoch if it is among the best, and drop the one it displaces."""
        metadata = {**self.metadata, "epoch": record.epoch, "metrics": record.metrics}
        checkpoint = NamedTensors(record.tensors, metadata)
        if record.epoch == 0:
            self._start = checkpoint
        elif self._start is None or self._rank(checkpoint) > self._rank(self._start):
            self._trained.append(checkpoint)
        self._trained.sort(key=self._rank, reverse=True)
        del self._trained[self.top_k :]

    def _rank(self, checkpoint: NamedTensors) -> tuple[float, int]:
        return score(checkpoint.metadata["metrics"], self.metric), checkpoint.metadata["epoch"]

    def state_dict(self) -> list[dict[str, Any]]:
        """The checkpoints as plain values, the start among them."""
        parts = [*([self._start] if self._start else []), *self._trained]
        return [{"tensors": part.tensors, "metadata": part.metadata} for part in parts]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Restore what `state_dict` returned; the metadata of this training overrides that of the state."""
        parts = [NamedTensors(dict(part["tensors"]), {**part["metadata"], **self.metadata}) for part in state]
        self._trained = [part for part in parts if part.metadata["epoch"]]
        self._start = next((part for part in parts if not part.metadata["epoch"]), None)


def should_stop(history: Sequence[Mapping[str, float]], metric: str, patience: int | None) -> bool:
    """Whether the metric has not improved for `patience` validations; never if `patience` is none.

    Args:
        history: metrics of the validations so far, oldest first.
        metric: name of the metric.
        patience: validations without improvement before training stops.
    """
    if patience is None:
        return False
    # Minus infinity stands before the first, so that a NaN is never an improvement.
    scores = [-math.inf, *(score(row, metric) for row in history)]
    return len(scores) - 1 - scores.index(max(scores)) >= patience
