"""The runs of a sweep: each is a process, whose curve is watched and which is stopped if hopeless."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
        since = time.time()

        def look() -> None:
            if report is not None:
                for epoch, value in self._curve(run):
                    report(epoch, value)

        try:
            self._make(run, f"{self.plan.sweep.stage}_history", look)
        except FailedRunError as failure:
            if not has_diverged(str(failure)):
                raise
            self._drop_progress(since, run.params)
            raise HopelessError("diverged") from failure
        except Exception:
            self._drop_progress(since, run.params)
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
            status = _run(run, self.plan.experiment.project_path, log, look)
            if status:
                raise FailedRunError(f"{_last_line(log)} (see {log})")
        look()

    def _dataset(self, name: str, run: PlannedRun) -> Any:
        return self.plan.experiment.book._pinned(name, run.run_id)

    def _curve(self, run: PlannedRun) -> list[tuple[int, float]]:
        dataset: Any = self.plan.experiment.catalog.get(f"{self.plan.sweep.stage}_tensorboard")
        return read_curve(Path(dataset._filepath) / run.run_id, self.plan.sweep.column)

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

    def _drop_progress(self, since: float, values: Mapping[str, Any]) -> None:
        """Remove the progress of trainings with these values that were saved since a moment, in seconds."""
        for stage in STAGES:
            dataset: Any = self.plan.experiment.catalog.get(f"{stage}_progress")
            for path in Path(dataset._filepath).glob("*/identity.json"):
                own = flatten({stage: json.loads(path.read_text("utf-8"))["parameters"]})
                is_same = all(own[name] == value for name, value in values.items() if name in own)
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


def read_curve(folder: Path, metric: str) -> list[tuple[int, float]]:
    """The validations that a training has logged so far, as epoch and value."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    if not folder.is_dir():
        return []
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    tag = f"epoch/{metric}"
    scalars = events.Scalars(tag) if tag in events.Tags()[SCALARS] else []
    # A training that goes on logs its earlier epochs again.
    values = {scalar.step: scalar.value for scalar in scalars}
    return [(step, value) for step, value in sorted(values.items()) if math.isfinite(value)]


def _wait_until_ended(experiment: Experiment, run_id: str) -> None:
    """Wait for the process of a sweep that was killed, which ends soon after it."""
    record = experiment.book.record_dataset(run_id)
    end = time.monotonic() + _STOP_SECONDS
    while record.exists() and record.load()["outcome"] == "running" and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)


def command_of(run: PlannedRun) -> list[str]:
    """The program that does a run, and its arguments."""
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


def _last_line(log: Path) -> str:
    """What a run said last: its refusal, or the end of a traceback."""
    lines = [line.strip() for line in _lines(log)]
    refusals = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return next(reversed(refusals or lines), "the run said nothing")


def _lines(log: Path) -> Iterator[str]:
    return (line for line in log.read_text("utf-8", "replace").splitlines() if line.strip())
