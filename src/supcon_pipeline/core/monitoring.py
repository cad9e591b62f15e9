"""Following a training: progress bar, scalars, history and the best checkpoints."""

import time
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from supcon_pipeline.core.tensors import NamedTensors
from supcon_pipeline.core.training import EpochRecord, StepRecord

LOWER_IS_BETTER = frozenset({"log_loss"})


class ScalarLog(Protocol):
    """What a TensorBoard `SummaryWriter` has."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Log one number."""


class TopCheckpoints:
    """The best epochs by a metric: the highest, or the lowest of `LOWER_IS_BETTER`; the later wins a draw.

    Args:
        metric: one of the validation metrics.
        top_k: how many to keep, at least 1.
        metadata: what goes into every checkpoint beside epoch and metrics.
    """

    def __init__(self, metric: str, top_k: int, metadata: dict[str, Any]):
        self.metric, self.top_k, self.metadata = metric, top_k, metadata
        self.checkpoints: list[NamedTensors] = []

    def offer(self, record: EpochRecord) -> None:
        """Keep the epoch where it is among the best, and let go of the one that no longer is.

        Raises:
            ValueError: where the metric is not among those of the record.
        """
        if self.metric not in record.metrics:
            known = ", ".join(record.metrics)
            raise ValueError(f"checkpoints.metric must be one of {known}, got {self.metric!r}")
        metadata = {**self.metadata, "epoch": record.epoch, "metrics": record.metrics}
        self.checkpoints.append(NamedTensors(record.tensors, metadata))
        self.checkpoints.sort(key=self._rank, reverse=True)
        del self.checkpoints[self.top_k :]

    def _rank(self, checkpoint: NamedTensors) -> tuple[float, int]:
        value = checkpoint.metadata["metrics"][self.metric]
        return (-value if self.metric in LOWER_IS_BETTER else value), checkpoint.metadata["epoch"]


class Monitor:
    """Reads the records of a training to their end.

    Losses are read from the device every `log_every` steps at once: a reading waits for the device.

    Args:
        title: what is trained, for the progress bar.
        log: where scalars go, named `step/…` per step and `epoch/…` per epoch.
        num_steps: of the whole training.
        log_every: steps between two readings.
    """

    def __init__(self, title: str, log: ScalarLog, num_steps: int, log_every: int = 10):
        self.title, self.log, self.num_steps, self.log_every = title, log, num_steps, log_every
        self._pending: list[StepRecord] = []

    def follow(
        self, records: Iterable[StepRecord | EpochRecord], top: TopCheckpoints
    ) -> list[dict[str, Any]]:
        """The history, one row per epoch; the bar is shown on a terminal only."""
        history: list[dict[str, Any]] = []
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            progress.disable = not progress.console.is_terminal
            task = progress.add_task(self.title, total=self.num_steps, numbers="")
            self._clock = time.perf_counter()
            for record in records:
                if isinstance(record, StepRecord):
                    self._pending.append(record)
                    if len(self._pending) >= self.log_every:
                        self._read_steps(progress, task)
                    continue
                self._read_steps(progress, task)
                top.offer(record)
                history.append(
                    {"epoch": record.epoch, "loss": record.loss, "lr": record.lr, **record.metrics}
                )
                self._log_epoch(record)
                # Validation is no part of the training speed.
                self._clock = time.perf_counter()
        return history

    def _read_steps(self, progress: Progress, task: TaskID) -> None:
        steps, self._pending = self._pending, []
        if not steps:
            return
        losses = torch.stack([record.loss for record in steps]).tolist()
        now = time.perf_counter()
        speed = sum(record.num_images for record in steps) / (now - self._clock)
        self._clock = now
        for record, loss in zip(steps, losses, strict=True):
            self.log.add_scalar("step/loss", loss, record.step)
            self.log.add_scalar("step/lr", record.lr, record.step)
        self.log.add_scalar("step/images_per_second", speed, steps[-1].step)
        numbers = f"loss {losses[-1]:.3f}  lr {steps[-1].lr:.2e}  {speed:,.0f} images/s"
        progress.update(task, completed=steps[-1].step, numbers=numbers)

    def _log_epoch(self, record: EpochRecord) -> None:
        self.log.add_scalar("epoch/loss", record.loss, record.epoch)
        for name, value in record.metrics.items():
            self.log.add_scalar(f"epoch/{name}", value, record.epoch)
