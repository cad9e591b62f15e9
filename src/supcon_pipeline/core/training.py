"""Training: step, epoch, fit. Yields records and writes nothing."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from supcon_pipeline.core.gradient_caching import cached_backward
from supcon_pipeline.core.metrics.direction import score
from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.optim.averaging import MovingAverage
from supcon_pipeline.core.optim.schedules import Schedule
from supcon_pipeline.core.precision import Precision, choose_precision
from supcon_pipeline.core.views.loading import Batch, ViewLoader


class Criterion(Protocol):
    """The loss of what a model gives for the rows of a batch: image by image, and view by view of each."""

    def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
        """A scalar."""


Metrics = dict[str, float]

_POSITION = ("epoch", "step", "losses", "lrs", "grad_norm", "collapse_losses")


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did; tensors stay on their device, so that reading them is the reader's choice.

    `collapse_loss` is what the loss would be if all images had the same projection. An untrusted gradient is
    one in float16, where an overflow now and then is normal and the step is left out.
    """

    step: int
    epoch: int
    loss: Tensor
    grad_norm: Tensor
    lr: float
    num_images: int
    collapse_loss: float | None
    is_gradient_trusted: bool


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to: its number from 1, mean loss, validation metrics and the validated weights.

    Without metrics and weights where the epoch was not validated.
    """

    epoch: int
    loss: float
    lr: float
    collapse_loss: float | None
    metrics: Metrics
    tensors: dict[str, Tensor]


@dataclass
class Training:
    """All that changes while a model is trained; `state_dict` holds it for another process to go on with.

    Args:
        model: on the device to train on.
        criterion: the loss of the model's output for a batch.
        loader: the training batches of each epoch.
        optimizer: of the model's parameters.
        schedule: of the optimizer.
        precision: of the forward passes, those of the validation too.
        ema: an average of the model; where given, it is what is validated and carried by the records.
        is_raw_validated: whether the records also have the metrics of the model beside its average, named
            `raw.<metric>`.
        micro_batch_size: images per forward pass where the batch does not fit; the gradient is that of the
            whole batch.
        max_grad_norm: longer gradients are scaled down to it.
        collapse_loss: the loss of a batch if all images had the same projection, from its labels and views.
        epoch: how many are done.
        step: how many are done.
        losses: of the steps of the epoch that has begun, on their device; as many as are done of it.
        lrs: of these steps.
        grad_norm: of the last step.
        collapse_losses: of these steps, where there is such a loss.
    """

    model: nn.Module
    criterion: Criterion
    loader: ViewLoader
    optimizer: Optimizer
    schedule: Schedule
    precision: Precision
    ema: MovingAverage | None = None
    is_raw_validated: bool = False
    micro_batch_size: int | None = None
    max_grad_norm: float | None = None
    collapse_loss: Callable[[Tensor, int], float] | None = None
    epoch: int = 0
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    grad_norm: Tensor | None = None
    collapse_losses: list[float] = field(default_factory=list)

    @property
    def validated(self) -> nn.Module:
        """The model that is validated and kept."""
        return self.model if self.ema is None else self.ema.module

    @property
    def is_gradient_trusted(self) -> bool:
        """Whether a gradient that is not finite means that something is wrong."""
        return self.precision.name != "float16"

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.precision.scaler,
        }
        return parts if self.ema is None else {**parts, "ema": self.ema}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, schedule, average, scaler, position and random states."""
        position = {name: getattr(self, name) for name in _POSITION}
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, **position, "precision": self.precision.name, "random": random_states()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the steps to come are those that would have come.

        In its precision too, because what `auto` measures may come out otherwise another time.

        Raises:
            RuntimeError: where the weights do not fit.
        """
        self.precision = choose_precision(state["precision"], self.precision.device)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name in _POSITION:
            setattr(self, name, state[name])
        set_random_states(state["random"])


def pick_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    training: Training,
    num_epochs: int,
    validate: Callable[[nn.Module], Metrics],
    metric: str,
    state_of: Callable[[nn.Module], Mapping[str, Tensor]] = nn.Module.state_dict,
    validation_interval: int = 1,
) -> Iterator[StepRecord | EpochRecord]:
    """Train from where `training` stands to the end, one record per step and one per epoch.

    While a record is looked at, `training.state_dict()` is the state right after it.

    Args:
        training: changed in place.
        num_epochs: of the whole training.
        validate: the metrics of a model.
        metric: the validation metric that the schedule may look at.
        state_of: which weights of the validated model the records carry.
        validation_interval: epochs from one validation to the next; the last epoch always has one.

    Raises:
        FloatingPointError: where a loss is not finite, at the end of its epoch.
    """
    while training.epoch < num_epochs:
        yield from _train_epoch(training)
        record = _finish_epoch(training)
        if training.epoch % validation_interval == 0 or training.epoch == num_epochs:
            metrics = _validate(training, validate, metric)
            state = state_of(training.validated)
            tensors = {name: value.detach().cpu().clone() for name, value in state.items()}
            record = replace(record, metrics=metrics, tensors=tensors)
        yield record


def _train_epoch(training: Training) -> Iterator[StepRecord]:
    """The steps of the epoch that are still to be done."""
    training.model.train()
    for batch in training.loader.epoch(training.epoch, first_batch=len(training.losses)):
        lr, collapse = training.schedule.lr, None
        if training.collapse_loss is not None:
            collapse = training.collapse_loss(batch.labels, batch.views.shape[1])
            training.collapse_losses.append(collapse)
        loss, grad_norm = train_step(training, batch)
        training.step += 1
        training.losses.append(loss)
        training.lrs.append(lr)
        training.grad_norm = grad_norm
        yield StepRecord(
            step=training.step,
            epoch=training.epoch + 1,
            loss=loss,
            grad_norm=grad_norm,
            lr=lr,
            num_images=len(batch.labels),
            collapse_loss=collapse,
            is_gradient_trusted=training.is_gradient_trusted,
        )


def _finish_epoch(training: Training) -> EpochRecord:
    require_all_finite(training)
    loss = float(torch.stack([value.cpu() for value in training.losses]).mean())
    collapse = fmean(training.collapse_losses) if training.collapse_losses else None
    record = EpochRecord(training.epoch + 1, loss, training.lrs[-1], collapse, {}, {})
    training.losses, training.lrs, training.collapse_losses = [], [], []
    training.epoch += 1
    return record


def _validate(training: Training, validate: Callable[[nn.Module], Metrics], metric: str) -> Metrics:
    with training.precision.autocast():
        metrics = validate(training.validated)
        is_raw_asked = training.ema is not None and training.is_raw_validated
        raw = validate(training.model) if is_raw_asked else {}
    training.schedule.observe(score(metrics, metric))
    return {**metrics, **{f"raw.{name}": value for name, value in raw.items()}}


def require_all_finite(training: Training) -> None:
    """Stop a training that has gone wrong in one of the steps of this epoch.

    Raises:
        FloatingPointError: as `require_finite`, with the first step that was wrong.
    """
    losses = torch.stack([loss.cpu() for loss in training.losses]).tolist()
    steps = range(training.step - len(losses) + 1, training.step + 1)
    for step, loss, lr in zip(steps, losses, training.lrs, strict=True):
        require_finite("loss", loss, step, lr)
    if training.grad_norm is not None and training.is_gradient_trusted:
        require_finite("gradient norm", float(training.grad_norm), training.step, training.lrs[-1])
    scale = training.precision.scaler.get_scale()
    if scale < 1:
        # Halved at every step whose gradient is not finite: by now none is, and all steps are left out.
        require_finite("gradient", math.nan, training.step, training.lrs[-1])


def require_finite(name: str, value: float, step: int, lr: float) -> None:
    """Stop a training that has gone wrong.

    Raises:
        FloatingPointError: where the value is infinite or not a number.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f"{name} must be finite, got {value} at step {step} with learning rate {lr:.3g}; "
            "lower the learning rate, raise the temperature, lengthen the warm-up or clip the gradient"
        )


def train_step(training: Training, batch: Batch, is_scheduled: bool = True) -> tuple[Tensor, Tensor]:
    """One step of optimizer, schedule and average: the loss before it and the gradient's norm, on the device.

    Args:
        training: changed in place.
        batch: on any device.
        is_scheduled: whether the schedule takes its step too.
    """
    device = next(training.model.parameters()).device
    batch = Batch(batch.views.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True))
    training.optimizer.zero_grad(set_to_none=True)
    loss = backward(training, batch)
    scaler = training.precision.scaler
    scaler.unscale_(training.optimizer)
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if training.max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, training.max_grad_norm, grad_norm)
    scaler.step(training.optimizer)
    scaler.update()
    if is_scheduled:
        training.schedule.step()
    if training.ema is not None:
        training.ema.update(training.model)
    return loss, grad_norm


def backward(training: Training, batch: Batch) -> Tensor:
    """Leave the gradient of a batch's loss, scaled as precision asks, in the parameters; give the loss."""
    rows = batch.views.flatten(0, 1)
    micro = training.micro_batch_size
    if micro is not None and micro < len(batch.labels):
        num_rows = micro * batch.views.shape[1]
        criterion = partial(training.criterion, batch=batch)
        return cached_backward(training.model, rows, num_rows, criterion, training.precision)
    with training.precision.autocast():
        loss = training.criterion(training.model(rows), batch)
    training.precision.scaler.scale(loss).backward()
    return loss.detach()


def random_states() -> dict[str, Any]:
    """The state of every global random generator, in types that can be read back without running code.

    Of the GPUs only the one that trains: whoever goes on may see fewer of them.
    """
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
