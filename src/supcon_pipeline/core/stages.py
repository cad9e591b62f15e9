"""A training from its parts to its best checkpoints, resumable."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from supcon_pipeline.core.checkpoints import TopCheckpoints, should_stop
from supcon_pipeline.core.data.images import LabelledImages, spread_evenly
from supcon_pipeline.core.models.embed import iterate_images
from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.models.weights import with_versions
from supcon_pipeline.core.monitoring import Monitor, log_epoch, warn_of_collapse
from supcon_pipeline.core.optim.averaging import average_states, batch_norms, build_ema, reestimate_batch_norm
from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.schedules import build_schedule
from supcon_pipeline.core.parameters.stages import TrainingParameters
from supcon_pipeline.core.precision import choose_precision
from supcon_pipeline.core.progress import Progress, ProgressStore, code_hash, flatten, library_versions
from supcon_pipeline.core.tensors import NamedTensors, fingerprint
from supcon_pipeline.core.training import (
    Criterion,
    EpochRecord,
    Metrics,
    StepRecord,
    Training,
    fit,
    pick_device,
    require_all_finite,
)
from supcon_pipeline.core.views.loading import Batch, ViewDataset, build_loader
from supcon_pipeline.core.views.mixing import Mixing
from supcon_pipeline.core.views.policy import ViewPolicy

logger = logging.getLogger(__name__)

History = list[dict[str, Any]]

# How many times as long as the last saving the training goes on before the end of an epoch is saved. Saving a
# ResNet-18 with its average and three checkpoints takes more than a second: at every epoch of a small data
# set, that would be a large part of the training.
_TRAINED_PER_SAVED = 20


@dataclass(frozen=True)
class Stage:
    """What is trained, and how.

    Args:
        title: for people.
        model: with its first weights.
        criterion: the loss of the model's output for a batch.
        num_views: of each image in a batch.
        validate: the metrics of a model.
        params: of the training.
        metadata: what the checkpoints say of themselves.
        origin: what the training is of beside its parameters, such as hashes of data and encoder.
        state_of: which weights are kept.
        micro_batch_size: images per forward pass, where the batch does not fit.
        collapse_loss: the loss of a batch of labels and views if all images had the same projection.
    """

    title: str
    model: nn.Module
    criterion: Criterion
    num_views: int
    validate: Callable[[nn.Module], Metrics]
    params: TrainingParameters
    metadata: dict[str, Any]
    origin: Mapping[str, Any]
    state_of: Callable[[nn.Module], Mapping[str, Tensor]] = nn.Module.state_dict
    micro_batch_size: int | None = None
    collapse_loss: Callable[[Tensor, int], float] | None = None

    def identity(self) -> dict[str, Any]:
        """What a training must share with this one for its progress to be of use."""
        # How often something is done and by how many changes no weight.
        unrelated: Any = {"progress_minutes": True, "validation_batch_size": True, "loader": {"num_workers"}}
        weights = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
        return {
            "stage": self.title,
            "parameters": self.params.model_dump(mode="json", exclude=unrelated),
            **self.origin,
            "first_weights": fingerprint(NamedTensors(weights)),
            "device": pick_device().type,
            "code_hash": code_hash(),
            "libraries": library_versions(),
        }


def build_training(stage: Stage, data: LabelledImages) -> Training:
    """Model, loader, optimizer, schedule and average of a stage, before the first step."""
    params, device = stage.params, pick_device()
    model = stage.model.to(device)
    policy, mixing = build_views(params, stage.num_views, data)
    loader = build_loader(
        data.images,
        data.labels,
        data.indices("train"),
        policy,
        **params.loader.model_dump(),
        seed=params.seed,
        mixing=mixing,
    )
    optimizer = build_optimizer(model, **params.optimizer.model_dump())
    schedule = build_schedule(optimizer, len(loader), **params.schedule.model_dump())
    ema = build_ema(model, params.ema.decay_per_epoch, len(loader)) if params.ema else None
    if params.compile:
        # After the average was copied, which is only ever evaluated.
        model.compile()
    return Training(
        model,
        stage.criterion,
        loader,
        optimizer,
        schedule,
        choose_precision(params.precision, device),
        ema=ema,
        is_raw_validated=params.ema is not None and params.ema.is_raw_validated,
        micro_batch_size=stage.micro_batch_size,
        max_grad_norm=params.max_grad_norm,
        collapse_loss=stage.collapse_loss,
    )


def build_views(
    params: TrainingParameters, num_views: int, data: LabelledImages
) -> tuple[ViewPolicy, Mixing | None]:
    """How the views of a training are made and mixed, tried on the shape of its images."""
    specs = [spec.model_dump() for spec in params.transforms]
    policy = ViewPolicy(specs, num_views, data.images.shape[1:])
    mixing = Mixing(**params.mixing.model_dump(), num_classes=data.num_classes) if params.mixing else None
    return policy, mixing


def sample_views(
    params: TrainingParameters, num_views: int, data: LabelledImages, num_images: int = 8
) -> tuple[np.ndarray, Batch]:
    """Some training images from as many classes as there are, and the batch that training makes of them."""
    train = data.indices("train")
    by_class = train[np.argsort(data.labels[train], kind="stable")]
    chosen = spread_evenly(by_class, num_images)
    dataset = ViewDataset(data.images, data.labels, *build_views(params, num_views, data))
    return data.images[chosen], dataset[params.seed, chosen]


def run_stage(
    stage: Stage, data: LabelledImages, log: Any, store: ProgressStore
) -> tuple[list[NamedTensors], History]:
    """The best checkpoints of a stage, best first, and its history by epoch.

    Goes on where a killed training of the same parameters, data and code has left its progress.

    Args:
        stage: what to train.
        data: trained on `train`, chosen by `validation`.
        log: a TensorBoard `SummaryWriter`.
        store: where progress is kept.
    """
    training, params = build_training(stage, data), stage.params
    top = TopCheckpoints(params.checkpoints.metric, params.checkpoints.top_k, stage.metadata)
    progress = store.open(stage.identity())
    session = Session(training, top, progress, params)
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
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; {session.describe_kept()}") from error
    named = flatten(params.model_dump(mode="json"))
    # TensorBoard takes no None.
    told = {name: value for name, value in named.items() if value is not None}
    log.add_hparams(told, final_metrics(session.history), run_name=".")
    return top.checkpoints, session.history


def _follow(records: Iterator[StepRecord | EpochRecord], session: "Session", monitor: Monitor) -> None:
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


class Session:
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
            FloatingPointError: where the training has gone wrong; the state saved before stays.
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


def average_models(
    checkpoints: Sequence[NamedTensors], data: LabelledImages, batch_size: int
) -> NamedTensors:
    """One model from several checkpoints: their mean, with batch-norm statistics of the training images.

    The statistics are taken over the training images as they are, because that is how images will come.
    """
    first = checkpoints[0]
    model = build_model(first.metadata["model"])
    averaged = average_states([checkpoint.tensors for checkpoint in checkpoints])
    model.load_state_dict(with_versions(averaged, model))
    if batch_norms(model):
        model = model.to(pick_device())
        # Shuffled, because a batch of one class would not look like the whole.
        order = np.random.default_rng(0).permutation(data.indices("train"))
        reestimate_batch_norm(model, iterate_images(data.images, order, batch_size, pick_device()))
    members = [{key: part.metadata[key] for key in ("epoch", "metrics")} for part in checkpoints]
    tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    metadata = {key: value for key, value in first.metadata.items() if key not in ("epoch", "metrics")}
    return NamedTensors(tensors, {**metadata, "averaged": members})
