"""The runs of a sweep: each is a process, whose curve is watched and which is stopped if hopeless."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError
from supcon_pipeline.core.claims import Claim
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.metrics.direction import score
from supcon_pipeline.core.training.progress import flatten
from supcon_pipeline.run_commands.books import Experiment
from supcon_pipeline.run_commands.sweep.plan import STAGES, PlannedRun, SweepPlan

# Takes the validations of a training one by one, as epoch and value.
Report = Callable[[int, float], None]
# Seconds between two looks at the curve of a training.
_LOOK_SECONDS = 0.5
# Of each kind of number in a log, which may be of millions of steps, so many are kept.
_MAX_SCALARS = 10_000
# How long a run may take to stop.
_STOP_SECONDS = 60
# How a run ends whose training is no longer finite.
_DIVERGED = re.compile(r"\b(loss|gradient|gradient norm) must be finite, got ")


class HopelessError(Exception):
    """A trial that is not worth going on with; its message says why."""


class FailedRunError(Exception):
    """A run that has failed; its message is its last line and where the others are."""


class SweepRuns:
    """Starts the runs of a sweep and reads what they leave.

    Args:
        plan: of the sweep.
        folder: for the output of each run.
    """

    def __init__(self, plan: SweepPlan, folder: Path):
        self.plan, self.folder = plan, folder

    def prepare(self) -> None:
        """Prepare the images for all trials, unless that is done.

        Raises:
            FailedRunError: where the run fails.
        """
        if self.plan.has_own_data:
            self._make(self.plan.data_run, "dataset_card")

    def validate(self, run: PlannedRun, report: Report | None = None) -> float:
        """Train, and give the best value of the metric on the validation images.

        Args:
            run: a run of a trial.
            report: is told each validation while it trains; what it raises ends the training.

        Raises:
            HopelessError: where the training is no longer finite, or measures no number.
            FailedRunError: where the run fails otherwise.
        """
        since, curve = time.time(), self._curve(run)

        def look() -> None:
            if report is not None:
                for epoch, value in curve.read():
                    report(epoch, value)

        try:
            self._make(run, f"{self.plan.sweep.stage}_history", look)
        except FailedRunError as failure:
            if not has_diverged(str(failure)):
                raise
            self._drop_progress(since, run)
            raise HopelessError("diverged") from failure
        except HopelessError:
            self._drop_progress(since, run)
            record = self.plan.experiment.book.record_dataset(run.run_id)
            if record.exists():
                record.mark_pruned()
            raise
        return self._best_value(run)

    def evaluate(self, run: PlannedRun) -> tuple[float, dict[str, Any]]:
        """Train and evaluate; gives the best value on validation images and the metrics on test images.

        Raises:
            FailedRunError: where the run fails.
        """
        self._make(run, "metrics")
        metrics: dict[str, Any] = self._dataset("metrics", run).load()
        return self._best_value(run), metrics

    def _make(self, run: PlannedRun, artifact: str, look: Callable[[], None] = lambda: None) -> None:
        """Run until the artifact is there; nothing runs if it is.

        Args:
            run: the run.
            artifact: its last artifact.
            look: is called again and again while it runs, and once at its end.
        """
        record = self.plan.experiment.book.record_dataset(run.run_id)
        is_complete = record.exists() and record.load()["outcome"] == "completed"
        if not (is_complete and self._dataset(artifact, run).exists()):
            _wait_until_ended(self.plan.experiment, run.run_id)
            log = self.folder / f"{run.run_id}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            num_bytes = log.stat().st_size if log.exists() else 0
            status = _run(run, self.plan.experiment.project_path, log, look)
            if status:
                raise FailedRunError(f"{_last_line(log, num_bytes)} (see {log})")
        look()

    def _dataset(self, name: str, run: PlannedRun) -> Any:
        return self.plan.experiment.book._pinned(name, run.run_id)

    def _curve(self, run: PlannedRun) -> "Curve":
        dataset: Any = self.plan.experiment.catalog.get(f"{self.plan.sweep.stage}_tensorboard")
        return Curve(dataset.folder_of(run.run_id), self.plan.sweep.column)

    def _best_value(self, run: PlannedRun) -> float:
        """The value of the epoch that a training keeps as its best."""
        stage, column = self.plan.sweep.stage, self.plan.sweep.column
        history = self._dataset(f"{stage}_history", run).load()
        if column not in history:
            raise CommandError(
                f"metric must be a column of {stage}_history, got {column!r}; "
                f"its columns are {', '.join(history.columns)}"
            )
        values = [float(value) for value in history[column] if math.isfinite(value)]
        if not values:
            raise HopelessError(f"{column} is no number")
        return max(values, key=lambda value: score({column: value}, column))

    def _drop_progress(self, since: float, run: PlannedRun) -> None:
        """Remove the progress of the trainings of a run, which were begun since a moment, in seconds."""
        for stage in (name for name in STAGES if name in run.pipelines):
            dataset: Any = self.plan.experiment.catalog.get(f"{stage}_progress")
            for path in Path(dataset._filepath).glob("*/identity.json"):
                try:
                    own = flatten({stage: json.loads(path.read_bytes())["parameters"]})
                except (ValueError, KeyError, TypeError):
                    # Damaged; whose it was, nobody knows.
                    continue
                is_same = all(own[name] == value for name, value in run.params.items() if name in own)
                if is_same and path.stat().st_mtime >= since:
                    _remove_unclaimed(path.parent)


def has_diverged(message: str) -> bool:
    """Whether a run has failed with this message because its training was no longer finite."""
    return _DIVERGED.search(message) is not None


def _remove_unclaimed(folder: Path) -> None:
    """Remove the progress of a training, unless another process is at it."""
    try:
        claim = Claim(folder.parent, [folder.name], f"training {folder.parent.name}")
    except InputError:
        return
    shutil.rmtree(folder, ignore_errors=True)
    claim.release()


class Curve:
    """The validations of a training, from TensorBoard's log of it.

    Args:
        folder: of the log; it need not be there yet.
        metric: what was measured.
    """

    def __init__(self, folder: Path, metric: str):
        self.folder, self.tag = folder, f"epoch/{metric}"

    @cached_property
    def _events(self) -> Any:
        """What reads the log on from where it was, each time it is asked."""
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

        return EventAccumulator(str(self.folder), size_guidance={SCALARS: _MAX_SCALARS})

    def read(self) -> list[tuple[int, float]]:
        """Epoch and value of all validations so far that gave a number."""
        if not self.folder.is_dir():
            return []
        self._events.Reload()
        is_there = self.tag in self._events.scalars.Keys()
        # A training that goes on logs its earlier epochs again.
        values = {event.step: event.value for event in self._events.Scalars(self.tag)} if is_there else {}
        return [(step, value) for step, value in sorted(values.items()) if math.isfinite(value)]


def _wait_until_ended(experiment: Experiment, run_id: str) -> None:
    """Wait for the process of a sweep that was killed, which ends soon after it."""
    record = experiment.book.record_dataset(run_id)
    end = time.monotonic() + _STOP_SECONDS
    while record.exists() and record.load()["outcome"] == "running" and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)


def command_of(run: PlannedRun) -> list[str]:
    """The program that does a run, in a project and elsewhere, and its arguments."""
    return [sys.executable, "-m", f"{__package__}.process", *run.words]


def _run(run: PlannedRun, project_path: Path, log: Path, look: Callable[[], None]) -> int:
    """Start a run and wait for its end; gives its status. Where this process is stopped, the run is first."""
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command_of(run),
            cwd=project_path,
            env={**os.environ, RUN_ID_VARIABLE: run.run_id},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A key that is pressed here stops this process, which stops the run.
            start_new_session=True,
        ) as process,
    ):
        try:
            while True:
                try:
                    return process.wait(_LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    look()
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _last_line(log: Path, num_bytes: int) -> str:
    """What a run said last, after so many bytes: its refusal, or the end of a traceback."""
    said = log.read_bytes()[num_bytes:].decode("utf-8", "replace")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    refusals = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return next(reversed(refusals or lines), "the run said nothing")
