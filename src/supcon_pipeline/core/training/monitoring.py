"""Following a training: progress bar and scalars."""

import logging
import time
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from supcon_pipeline.core.training.loop import require_finite
from supcon_pipeline.core.training.state import EpochRecord, StepRecord

logger = logging.getLogger(__name__)
# By itself, so that a log file can have an epoch on one line, however wide the other words are set.
epoch_logger = logging.getLogger(f"{__name__}.epochs")
# How near to the loss of a collapsed encoder is "on" it: 0.5 % of that loss.
COLLAPSE_TOLERANCE = 0.005


class ScalarLog(Protocol):
    """What is used of a TensorBoard `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Log one number."""


class Monitor:
    """Shows the records of a training as they come: by a bar on a terminal, else by a line for each epoch.

    Losses are read from the device every `log_every` steps at once: a reading waits for the device.

    Args:
        title: what is trained.
        log: where scalars go, named `step/…` per step and `epoch/…` per epoch.
        num_steps: of the whole training.
        num_epochs: of the whole training.
        metric: of the validation, that the line of an epoch has.
        first_step: steps done before.
        log_every: steps between two readings.
    """

    def __init__(
        self,
        title: str,
        log: ScalarLog,
        num_steps: int,
        num_epochs: int,
        metric: str,
        first_step: int = 0,
        log_every: int = 10,
    ):
        self.title, self.log, self.log_every = title, log, log_every
        self.num_steps, self.num_epochs, self.metric = num_steps, num_epochs, metric
        self.first_step = self._step = first_step
        # Of the epoch.
        self._num_images, self._seconds = 0, 0.0
        self._pending: list[StepRecord] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        )
        self._progress.disable = not self._progress.console.is_terminal
        self._task = self._progress.add_task(title, total=num_steps, completed=first_step, numbers="")

    def __enter__(self) -> Self:
        self._progress.start()
        self._start = self._clock = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show_step(self, record: StepRecord) -> None:
        """Take up a step; numbers are read and shown every `log_every` steps.

        Raises:
            FloatingPointError: where a loss or gradient read is not finite.
        """
        self._pending.append(record)
        if len(self._pending) >= self.log_every:
            self._read_steps()

    def show_epoch(self, record: EpochRecord) -> None:
        """Show what is pending, then the epoch."""
        self._read_steps()
        log_epoch(self.log, {"epoch": record.epoch, "loss": record.loss, **record.metrics})
        # Validation is no part of the training speed.
        self._clock = time.perf_counter()
        if self._progress.disable:
            epoch_logger.info(self._describe_epoch(record))
        self._num_images, self._seconds = 0, 0.0

    def _describe_epoch(self, record: EpochRecord) -> str:
        words = [f"{self.title}: epoch {record.epoch}/{self.num_epochs}", f"loss {record.loss:.3f}"]
        if self.metric in record.metrics:
            words.append(f"{self.metric} {record.metrics[self.metric]:.4f}")
        # A training that was killed after the last step of an epoch goes on without a step of it.
        if self._seconds:
            words.append(f"{self._num_images / self._seconds:,.0f} images/s")
        num_done, num_left = self._step - self.first_step, self.num_steps - self._step
        if num_done and num_left:
            seconds_left = (self._clock - self._start) / num_done * num_left
            words.append(f"{timedelta(seconds=round(seconds_left))} left")
        return ", ".join(words)

    def _read_steps(self) -> None:
        steps, self._pending = self._pending, []
        if not steps:
            return
        losses = torch.stack([record.loss for record in steps]).tolist()
        norms = torch.stack([record.grad_norm for record in steps]).tolist()
        now, num_images = time.perf_counter(), sum(record.num_images for record in steps)
        speed = num_images / (now - self._clock)
        self._num_images, self._seconds = self._num_images + num_images, self._seconds + now - self._clock
        self._clock, self._step = now, steps[-1].step
        for record, loss, norm in zip(steps, losses, norms, strict=True):
            require_finite("loss", loss, record.step, record.lr)
            if record.is_gradient_trusted:
                require_finite("gradient norm", norm, record.step, record.lr)
            self._log_step(record, loss, norm)
            # Steps are not waited for one by one: theirs is the speed since the last reading.
            self.log.add_scalar("step/images_per_second", speed, record.step)
        numbers = f"loss {losses[-1]:.3f}  lr {steps[-1].lr:.2e}  {speed:,.0f} images/s"
        self._progress.update(self._task, completed=steps[-1].step, numbers=numbers)

    def _log_step(self, record: StepRecord, loss: float, norm: float) -> None:
        self.log.add_scalar("step/loss", loss, record.step)
        self.log.add_scalar("step/lr", record.lr, record.step)
        self.log.add_scalar("step/gradient_norm", norm, record.step)
        if record.collapse_loss is not None:
            self.log.add_scalar("step/collapse_loss", record.collapse_loss, record.step)


def log_epoch(log: ScalarLog, row: dict[str, float]) -> None:
    """Log one row of a history; the learning rate and the loss of a collapse are logged by step."""
    for name, value in row.items():
        if name not in ("epoch", "lr", "collapse_loss"):
            log.add_scalar(f"epoch/{name}", value, int(row["epoch"]))


def warn_of_collapse(history: list[dict[str, Any]], num_warmup_epochs: int) -> bool:
    """Say so when training sits on the loss of a collapsed encoder, after the warm-up.

    Sitting there is two epochs within 0.5 % of it. An encoder that has learned next to nothing has about the
    same loss: the metrics of the projection tell the two apart. Gives whether it warned.
    """
    recent = history[num_warmup_epochs:][-2:]
    is_on_it = [
        row["collapse_loss"] is not None
        and abs(row["loss"] - row["collapse_loss"]) < COLLAPSE_TOLERANCE * row["collapse_loss"]
        for row in recent
    ]
    if len(recent) < 2 or not all(is_on_it):
        return False
    logger.warning(
        "loss %.3f sits on %.3f, that of the same projection for every image: the encoder has collapsed, or "
        "learned nothing yet; lengthen the warm-up, lower the learning rate or raise the temperature",
        recent[-1]["loss"],
        recent[-1]["collapse_loss"],
    )
    return True
