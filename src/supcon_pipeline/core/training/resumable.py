"""A resumable stage, from its first step to its best checkpoints."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import DivergenceError, InputError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.stages import TrainingParameters
from supcon_pipeline.core.ranks import Ranks
from supcon_pipeline.core.training.checkpoints import TopCheckpoints, should_stop
from supcon_pipeline.core.training.hosts import Meeting
from supcon_pipeline.core.training.launching import launch
from supcon_pipeline.core.training.loop import fit, is_over, require_all_finite
from supcon_pipeline.core.training.monitoring import Monitor, NoLog, log_epoch, warn_of_collapse
from supcon_pipeline.core.training.patience import warn_of_patience
from supcon_pipeline.core.training.progress import Progress, ProgressStore, flatten
from supcon_pipeline.core.training.random_states import random_states, set_random_states
from supcon_pipeline.core.training.stage import Stage, build_training, sample_views
from supcon_pipeline.core.training.state import EpochRecord, StepRecord, Training

logger = logging.getLogger(__name__)
History = list[dict[str, Any]]
# The columns that every history has.
EMPTY_HISTORY = ("epoch", "loss", "lr", "collapse_loss")
# The end of an epoch is saved once training has gone on this many times as long as the last save took. Saving
# a ResNet-18 with its average and three checkpoints takes more than a second: after every epoch on a small
# dataset, that would be a large part of the training time.
_TRAINED_PER_SAVED = 20


def run_stage(
    stage: Stage, data: LabelledImages, log: Any, store: ProgressStore, run_id: str
) -> tuple[list[NamedTensors], History]:
    """Train a stage, or resume it where a killed training with the same identity left off.

    Args:
        stage: what to train.
        data: `train` to train on, `validation` to choose checkpoints.
        log: a TensorBoard `SummaryWriter`.
        store: keeps the progress.
        run_id: goes into the metadata of the checkpoints.

    Returns:
        The best checkpoints, best first, and the history, one row per epoch.

    Raises:
        InputError: where validation cannot measure what chooses the checkpoints.
        DivergenceError: where a loss is not finite.
    """
    _require_measured(stage, data)
    warn_of_patience(stage.group, stage.params, stage.is_start_validated)
    count, num_hosts = count_processes(stage, data), count_hosts()
    if count == num_hosts == 1:
        training = build_training(stage, data)
        return train(training, stage, data, log, store.open(stage.identity()), run_id)
    progress = store.open(stage.identity())
    parameter, seed = f"{stage.group}.processes", stage.params.seed
    arguments = (random_states(), stage, data, log.log_dir, progress, run_id)
    launch(_train_in_process, count, parameter, seed, progress.path.parent, *arguments)
    # The processes have left it there.
    state, top = progress.latest(), top_checkpoints(stage, run_id)
    if state is None:
        raise RuntimeError(f"progress of {stage.title} must be saved at its end, got none")
    top.load_state_dict(state["top"])
    return top.checkpoints, state["history"]


def _require_measured(stage: Stage, data: LabelledImages) -> None:
    metric, labels = stage.params.checkpoints.metric, data.labels[data.indices("validation")]
    num_classes = len(np.unique(labels))
    if metric.endswith((".ami", ".nmi")) and not 1 < num_classes < len(labels):
        name, feature = f"{stage.key}.checkpoints.metric", metric.partition(".")[0]
        raise InputError(
            f"{name} must be one of retrieval where {len(labels):,} validation images of {num_classes:,} "
            f"classes leave nothing to cluster, got {metric!r}; add --params {name}={feature}.r_precision"
        )


def count_processes(stage: Stage, data: LabelledImages) -> int:
    """How many processes train a stage on each host: as the parameters say, or one for each GPU of use.

    Raises:
        InputError: where there are more than GPUs, or on all hosts than images in the smallest batch.
    """
    params, num_gpus = stage.params, torch.cuda.device_count()
    num_images, size = len(data.indices("train")), params.loader.batch_size
    # Shuffled batches are of nearly equal size.
    is_shuffled = params.loader.sampler == "shuffled"
    smallest = num_images // -(-num_images // size) if is_shuffled else size
    num_hosts = count_hosts()
    share = smallest // num_hosts
    if not share:
        raise InputError(
            f"{stage.group}.loader.batch_size must be at least the number of hosts ({num_hosts}), got "
            f"batches of {smallest}; start fewer hosts"
        )
    if params.processes == "auto":
        return max(1, min(num_gpus, share))
    what = "images of a batch" if num_hosts == 1 else f"images of a batch, on each of {num_hosts} hosts"
    limits = {what: share, **({"GPUs": num_gpus} if num_gpus else {})}
    for things, most in limits.items():
        if params.processes > most > 0:
            name = f"{stage.group}.processes"
            raise InputError(
                f"{name} must be at most {most} ({things}), got {params.processes}; "
                f"add --params {name}={most}"
            )
    return params.processes


def count_hosts() -> int:
    """How many hosts take part in the trainings of this process."""
    return Meeting.current.hosts.count if Meeting.current else 1


def top_checkpoints(stage: Stage, run_id: str) -> TopCheckpoints:
    """What keeps the best checkpoints of a stage."""
    params = stage.params.checkpoints
    return TopCheckpoints(params.metric, params.top_k, stage.metadata(run_id))


def _train_in_process(
    ranks: Ranks,
    states: Mapping[str, Any],
    stage: Stage,
    data: LabelledImages,
    log_folder: str,
    progress: Progress,
    run_id: str,
) -> None:
    """Train a stage together with others; what is reached is in the progress.

    The states are of the random generators of the process that made the stage, from which the first goes on.
    """
    from supcon_pipeline.core.training.tensorboard import TrainingLog

    set_random_states(states)
    training = build_training(stage, data, ranks)
    with TrainingLog(log_folder) if ranks.is_first else NoLog() as log:
        train(training, stage, data, log, progress, run_id)


def train(
    training: Training, stage: Stage, data: LabelledImages, log: Any, progress: Progress, run_id: str
) -> tuple[list[NamedTensors], History]:
    """Train a stage from its progress on, in this process alone or together with others.

    Only the first of several saves, logs and shows; the others do as it does, without.

    Raises:
        DivergenceError: where a loss is not finite.
    """
    params = stage.params
    top = top_checkpoints(stage, run_id)
    resumable = ResumableTraining(training, top, progress, params)
    resumable.resume(stage.title, log)
    views = sample_views(params, stage.num_views, data, stage.view_sizes)[1].views
    log.add_images("views", views.flatten(0, 1), 0, dataformats="NHWC")
    num_epochs, metric = params.schedule.num_epochs, params.checkpoints.metric
    interval = params.validation_interval
    is_start_due = stage.is_start_validated and not resumable.history
    records = fit(training, num_epochs, stage.validate, metric, stage.state_of, interval, is_start_due)
    num_steps = num_epochs * len(training.loader)
    with (
        closing(training.loader),
        Monitor(
            *(stage.title, log, num_steps, num_epochs, metric, training.step),
            seconds_left=lambda: training.seconds_left,
            is_shown=training.loader.ranks.is_first,
        ) as monitor,
    ):
        try:
            _follow(records, resumable, monitor, stage)
        except DivergenceError as error:
            # A tenth of an absurd rate is one as well.
            lr = min(params.optimizer.lr / 10, 0.1)
            group = stage.optimizer_group or stage.key
            remedy = f"for example with --params {group}.optimizer.lr={lr:.2g}"
            raise DivergenceError(f"{error}, {remedy}; {resumable.describe_kept()}") from error
    named = flatten(params.model_dump(mode="json"))
    # TensorBoard does not accept None.
    hparams = {"stage": stage.key} | {name: value for name, value in named.items() if value is not None}
    log.add_hparams(hparams, final_metrics(resumable.history), run_name=".")
    return top.checkpoints, resumable.history


def _follow(
    records: Iterator[StepRecord | EpochRecord],
    resumable: "ResumableTraining",
    monitor: Monitor,
    stage: Stage,
) -> None:
    """Show and keep the records as they come, until the training is finished."""
    training, warmup_epochs, has_warned = resumable.training, resumable.params.schedule.warmup_epochs, False
    # Where time is limited, the warm-up is a share of it, and over after fewer epochs.
    begun, num_rising = training.planned_epoch, min(training.epoch, warmup_epochs)
    while not resumable.is_finished:
        record = next(records)
        if isinstance(record, EpochRecord):
            monitor.show_epoch(record)
            resumable.take_epoch(record)
            num_rising = record.epoch if begun < warmup_epochs else num_rising
            begun = training.planned_epoch
            asked = (resumable.history, num_rising, stage.key, stage.collapse_room)
            has_warned = has_warned or warn_of_collapse(*asked)
        else:
            monitor.show_step(record)
            resumable.take_step()


class ResumableTraining:
    """A training with its history and best checkpoints, saved to disk as it goes.

    Args:
        training: the training.
        top: its best checkpoints.
        progress: takes the state after the last epoch, after other epochs if saving is short compared to the
            time trained since the last save, and within an epoch every `progress_minutes`.
        params: parameters of the training.
    """

    def __init__(
        self, training: Training, top: TopCheckpoints, progress: Progress, params: TrainingParameters
    ):
        self.training, self.top, self.progress, self.params = training, top, progress, params
        self.history: History = []
        # How long a save takes is not known yet: the first epoch is saved in any case.
        self._saved_at, self._saving_seconds = time.monotonic(), 0.0
        self._saved_best: int | None = None

    def resume(self, title: str, log: Any) -> None:
        """Restore the saved progress if there is any, and say so."""
        ranks = self.training.loader.ranks
        state = ranks.agree(self.progress.latest() if ranks.is_first else None)
        if state is None:
            return
        self.training.load_state_dict(state["training"])
        self.top.load_state_dict(state["top"])
        self.history = [dict(row) for row in state["history"]]
        self._saved_best = self._best_epoch()
        for row in self.history:
            log_epoch(log, row)
        logger.warning("Resuming %s after epoch %d, step %d", title, self.training.epoch, self.training.step)
        if (before := state.get("processes", 1)) != ranks.count:
            logger.warning(
                "Going on with %d processes instead of %d: the same batches, in other parts for batch-norm",
                ranks.count,
                before,
            )

    def take_epoch(self, record: EpochRecord) -> None:
        """Add an epoch to checkpoints and history; save the state if it is time to."""
        if record.metrics:
            self.top.offer(record)
        row = {"epoch": record.epoch, "loss": record.loss, "lr": record.lr}
        self.history.append({**row, "collapse_loss": record.collapse_loss, **record.metrics})
        is_cheap = time.monotonic() - self._saved_at >= _TRAINED_PER_SAVED * self._saving_seconds
        if is_cheap or self.is_finished or self._is_due():
            self._save()

    def take_step(self) -> None:
        """Save the state if the last save is long enough ago.

        Raises:
            DivergenceError: where the training has diverged; the last saved state is kept.
        """
        if self._is_due():
            require_all_finite(self.training)
            self._save()

    def describe_kept(self) -> str:
        """Where the best saved epoch is, for a training that has diverged."""
        if self._saved_best is None:
            return "no validated epoch was saved"
        return f"the best saved epoch, {self._saved_best}, is kept in {self.progress.path}"

    def _is_due(self) -> bool:
        minutes = self.params.progress_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _best_epoch(self) -> int | None:
        return self.top.checkpoints[0].metadata["epoch"] if self.top.checkpoints else None

    def _save(self) -> None:
        start, ranks = time.monotonic(), self.training.loader.ranks
        if ranks.is_first:
            self.progress.save(self._state(ranks.count))
        self._saved_at, self._saved_best = time.monotonic(), self._best_epoch()
        self._saving_seconds = self._saved_at - start

    def _state(self, num_processes: int) -> dict[str, Any]:
        return {
            "processes": num_processes,
            "training": self.training.state_dict(),
            "top": self.top.state_dict(),
            "history": self.history,
        }

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done or early stopping applies."""
        stopping, metric = self.params.early_stopping, self.params.checkpoints.metric
        validated = [row for row in self.history if metric in row]
        has_stalled = should_stop(validated, metric, stopping.patience if stopping else None)
        is_last = is_over(self.training, self.params.schedule.num_epochs)
        return is_last or (has_stalled and not self.training.losses)


def final_metrics(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last row of a history, as metrics for TensorBoard's table of hyper-parameters."""
    return {f"final/{name}": value for name, value in history[-1].items() if isinstance(value, float)}
