"""Watching a training: progress bar, log lines and scalars."""

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from supcon_pipeline.core.training.loop import require_finite
from supcon_pipeline.core.training.state import EpochRecord, StepRecord

logger = logging.getLogger(__name__)
# A logger of its own, so that its lines can be formatted without wrapping.
epoch_logger = logging.getLogger(f"{__name__}.epochs")
# A loss this close to that of a collapsed encoder, relative to it, counts as equal.
COLLAPSE_TOLERANCE = 0.005
# But not where it has come so far, as a share of how far it can fall.
LEARNED_SHARE = 0.02


class ScalarLog(Protocol):
    """The part of a TensorBoard `SummaryWriter` that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Log one number."""


class NoLog:
    """Logs nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Do nothing."""

    def add_images(self, tag: str, images: Any, global_step: int, dataformats: str) -> None:
        """Do nothing."""

    def add_hparams(self, parameters: Any, metrics: Any, run_name: str) -> None:
        """Do nothing."""


class Monitor:
    """Shows the records of a training as they come: on a terminal by a bar, else by a log line per epoch.

    Losses are read from the device once every `log_every` steps, because each read waits for the device.

    Args:
        title: name of the training.
        log: takes the scalars, named `step/…` per step and `epoch/…` per epoch.
        num_steps: steps of the whole training.
        num_epochs: epochs of the whole training.
        metric: the validation metric shown for each epoch.
        first_step: steps done before, in a resumed training.
        log_every: steps between two reads.
        seconds_left: how long the training may still go on; by default, as long as it takes.
        is_shown: whether there is a bar on a terminal.
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
        seconds_left: Callable[[], float] = lambda: math.inf,
        is_shown: bool = True,
    ):
        self.seconds_left = seconds_left
        self.title, self.log, self.log_every = title, log, log_every
        self.num_steps, self.num_epochs, self.metric = num_steps, num_epochs, metric
        self.first_step = self._step = first_step
        # Within the current epoch.
        self._num_images, self._seconds = 0, 0.0
        self._pending: list[StepRecord] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        )
        self._progress.disable = not (is_shown and self._progress.console.is_terminal)
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
        """Record a step; numbers are read and shown every `log_every` steps.

        Raises:
            DivergenceError: where a loss or gradient norm is not finite.
        """
        self._pending.append(record)
        if len(self._pending) >= self.log_every:
            self._read_steps()

    def show_epoch(self, record: EpochRecord) -> None:
        """Show the pending steps, then the epoch."""
        self._read_steps()
        log_epoch(self.log, {"epoch": record.epoch, "loss": record.loss, **record.metrics})
        # Validation does not count towards the training speed.
        self._clock = time.perf_counter()
        if self._progress.disable:
            epoch_logger.info(self._describe_epoch(record))
        self._num_images, self._seconds = 0, 0.0

    def _describe_epoch(self, record: EpochRecord) -> str:
        words = [f"{self.title}: epoch {record.epoch}/{self.num_epochs}"]
        if record.loss is not None:
            words.append(f"loss {record.loss:.3f}")
        if self.metric in record.metrics:
            words.append(f"{self.metric} {record.metrics[self.metric]:.4f}")
        # Resumed after the last step of an epoch, a training has no step of it to time.
        if self._seconds:
            words.append(f"{self._num_images / self._seconds:,.0f} images/s")
        num_done, num_left = self._step - self.first_step, self.num_steps - self._step
        if num_done and num_left:
            seconds_left = min((self._clock - self._start) / num_done * num_left, self.seconds_left())
            words.append(f"{timedelta(seconds=round(max(0, seconds_left)))} left")
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
            # Steps are not timed one by one: each gets the speed since the last read.
            self.log.add_scalar("step/images_per_second", speed, record.step)
        numbers = f"loss {losses[-1]:.3f}  lr {steps[-1].lr:.2e}  {speed:,.0f} images/s"
        self._progress.update(self._task, completed=steps[-1].step, numbers=numbers)

    def _log_step(self, record: StepRecord, loss: float, norm: float) -> None:
        self.log.add_scalar("step/loss", loss, record.step)
        self.log.add_scalar("step/lr", record.lr, record.step)
        self.log.add_scalar("step/gradient_norm", norm, record.step)
        if record.collapse_loss is not None:
            self.log.add_scalar("step/collapse_loss", record.collapse_loss, record.step)


def log_epoch(log: ScalarLog, row: dict[str, Any]) -> None:
    """Log one row of a history; learning rate and collapse loss are logged per step instead."""
    for name, value in row.items():
        if value is not None and name not in ("epoch", "lr", "collapse_loss"):
            log.add_scalar(f"epoch/{name}", value, int(row["epoch"]))


def warn_of_collapse(
    history: list[dict[str, Any]], num_warmup_epochs: int, key: str = "stage1", room: float = math.inf
) -> bool:
    """Warn when the loss is stuck at that of a collapsed encoder, after the warm-up.

    Stuck means two epochs within 0.5 % of it, and within 2 % of how far the loss can fall. An encoder that
    has learned next to nothing has about the same loss; the metrics of the projection tell the two apart.

    Args:
        history: one row per epoch, with `loss`, `lr` and `collapse_loss`.
        num_warmup_epochs: epochs to leave out.
        key: name of the group of parameters, for the remedy.
        room: how far the loss can fall below that of a collapsed encoder.

    Returns:
        Whether it warned.
    """
    recent = [row for row in history if row["epoch"] > num_warmup_epochs][-2:]
    is_on_it = [
        row["collapse_loss"] is not None
        and abs(row["loss"] - row["collapse_loss"])
        < min(COLLAPSE_TOLERANCE * row["collapse_loss"], LEARNED_SHARE * room)
        for row in recent
    ]
    if len(recent) < 2 or not all(is_on_it):
        return False
    logger.warning(
        "loss %.3f is stuck at %.3f, its value when every image has the same projection: the encoder has "
        "collapsed or learned nothing yet; if it stays there, stop and train with "
        "--params %s.optimizer.lr=%.2g, a longer %s.schedule.warmup_epochs or a higher %s.loss.temperature",
        recent[-1]["loss"],
        recent[-1]["collapse_loss"],
        key,
        max(row["lr"] for row in history if row["lr"] is not None) / 10,
        key,
        key,
    )
    return True
