"""A stage from its first step to its best checkpoints, resumable."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import DivergenceError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.stages import TrainingParameters
from supcon_pipeline.core.training.checkpoints import TopCheckpoints, should_stop
from supcon_pipeline.core.training.loop import fit, require_all_finite
from supcon_pipeline.core.training.monitoring import Monitor, log_epoch, warn_of_collapse
from supcon_pipeline.core.training.progress import Progress, ProgressStore, flatten
from supcon_pipeline.core.training.stage import Stage, build_training, sample_views
from supcon_pipeline.core.training.state import EpochRecord, StepRecord, Training

logger = logging.getLogger(__name__)
History = list[dict[str, Any]]
# How many times as long as the last saving the training goes on before the end of an epoch is saved. Saving a
# ResNet-18 with its average and three checkpoints takes more than a second: at every epoch of a small data
# set, that would be a large part of the training.
_TRAINED_PER_SAVED = 20


def run_stage(
    stage: Stage, data: LabelledImages, log: Any, store: ProgressStore, run_id: str
) -> tuple[list[NamedTensors], History]:
    """The best checkpoints of a stage, best first, and its history by epoch.

    Goes on where a killed training of the same parameters, data and code has left its progress.

    Args:
        stage: what to train.
        data: trained on `train`, chosen by `validation`.
        log: a TensorBoard `SummaryWriter`.
        store: where progress is kept.
        run_id: for the checkpoints.
    """
    training, params = build_training(stage, data), stage.params
    top = TopCheckpoints(params.checkpoints.metric, params.checkpoints.top_k, stage.metadata(run_id))
    progress = store.open(stage.identity())
    session = ResumableTraining(training, top, progress, params)
    session.resume(stage.title, log)
    views = sample_views(params, stage.num_views, data)[1].views
    log.add_images("views", views.flatten(0, 1), 0, dataformats="NHWC")
    num_epochs, metric = params.schedule.num_epochs, params.checkpoints.metric
    interval = params.validation_interval
    records = fit(training, num_epochs, stage.validate, metric, stage.state_of, interval)
    num_steps = num_epochs * len(training.loader)
    with Monitor(stage.title, log, num_steps, num_epochs, metric, training.step) as monitor:
        try:
            _follow(records, session, monitor)
        except DivergenceError as error:
            raise DivergenceError(f"{error}; {session.describe_kept()}") from error
    named = flatten(params.model_dump(mode="json"))
    # TensorBoard takes no None.
    told = {name: value for name, value in named.items() if value is not None}
    log.add_hparams(told, final_metrics(session.history), run_name=".")
    return top.checkpoints, session.history


def _follow(
    records: Iterator[StepRecord | EpochRecord], session: "ResumableTraining", monitor: Monitor
) -> None:
    """Show and keep the records as they come, until the training is at its end."""
    has_warned, num_warmup_epochs = False, session.params.schedule.warmup_epochs
    while not session.is_finished:
        record = next(records)
        if isinstance(record, EpochRecord):
            monitor.show_epoch(record)
            session.take_epoch(record)
            has_warned = has_warned or warn_of_collapse(session.history, num_warmup_epochs)
        else:
            monitor.show_step(record)
            session.take_step()


class ResumableTraining:
    """A training with its history and best checkpoints, kept on disk as it goes.

    Args:
        training: what goes on.
        top: the best checkpoints.
        progress: where the state goes: after the last epoch, after others once enough time is trained, and
            inside an epoch every `progress_minutes`.
        params: of the training.
    """

    def __init__(
        self, training: Training, top: TopCheckpoints, progress: Progress, params: TrainingParameters
    ):
        self.training, self.top, self.progress, self.params = training, top, progress, params
        self.history: History = []
        # Nothing is known of how long a saving takes: the first epoch is saved.
        self._saved_at, self._saving_seconds = time.monotonic(), 0.0
        self._saved_best: int | None = None

    def resume(self, title: str, log: Any) -> None:
        """Take up the progress where there is some, and say so."""
        state = self.progress.latest()
        if state is None:
            return
        self.training.load_state_dict(state["training"])
        self.top.load_state_dict(state["top"])
        self.history = [dict(row) for row in state["history"]]
        self._saved_best = self._best_epoch()
        for row in self.history:
            log_epoch(log, row)
        logger.warning(
            "Going on with %s after epoch %d, step %d", title, self.training.epoch, self.training.step
        )

    def take_epoch(self, record: EpochRecord) -> None:
        """Keep what an epoch came to."""
        if record.metrics:
            self.top.offer(record)
        row = {"epoch": record.epoch, "loss": record.loss, "lr": record.lr}
        self.history.append({**row, "collapse_loss": record.collapse_loss, **record.metrics})
        is_cheap = time.monotonic() - self._saved_at >= _TRAINED_PER_SAVED * self._saving_seconds
        if is_cheap or self.is_finished or self._is_due():
            self._save()

    def take_step(self) -> None:
        """Keep the state where the last saving is long enough ago.

        Raises:
            DivergenceError: where the training has gone wrong; the state saved before stays.
        """
        if self._is_due():
            require_all_finite(self.training)
            self._save()

    def describe_kept(self) -> str:
        """Where the best epoch is that was saved, for a training that has gone wrong."""
        if self._saved_best is None:
            return "no validated epoch was saved before"
        return f"epoch {self._saved_best}, the best that was saved, is kept in {self.progress.path}"

    def _is_due(self) -> bool:
        minutes = self.params.progress_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _best_epoch(self) -> int | None:
        return self.top.checkpoints[0].metadata["epoch"] if self.top.checkpoints else None

    def _save(self) -> None:
        start = time.monotonic()
        state = {
            "training": self.training.state_dict(),
            "top": self.top.state_dict(),
            "history": self.history,
        }
        self.progress.save(state)
        self._saved_at, self._saved_best = time.monotonic(), self._best_epoch()
        self._saving_seconds = self._saved_at - start

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or no more are of use."""
        stopping, metric = self.params.early_stopping, self.params.checkpoints.metric
        validated = [row for row in self.history if metric in row]
        has_stalled = should_stop(validated, metric, stopping.patience if stopping else None)
        is_last = self.training.epoch >= self.params.schedule.num_epochs
        return is_last or (has_stalled and not self.training.losses)


def final_metrics(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last row of a history, as TensorBoard's table of hyper-parameters takes it."""
    return {f"final/{name}": value for name, value in history[-1].items() if isinstance(value, float)}
