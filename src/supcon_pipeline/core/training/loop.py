"""The training loop: step, epoch, fit. It yields records and writes nothing."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import fmean

import torch
from torch import Tensor, nn

from supcon_pipeline.core.device import wait_for
from supcon_pipeline.core.messages import DivergenceError
from supcon_pipeline.core.metrics.direction import score
from supcon_pipeline.core.optim.averaging import batch_norms
from supcon_pipeline.core.training.gradient_caching import cached_backward
from supcon_pipeline.core.training.state import EpochRecord, Metrics, StepRecord, Training, Validation
from supcon_pipeline.core.views.loading import Batch


def fit(
    training: Training,
    num_epochs: int,
    validate: Validation,
    metric: str,
    state_of: Callable[[nn.Module], Mapping[str, Tensor]] = nn.Module.state_dict,
    validation_interval: int = 1,
    is_start_validated: bool = False,
) -> Iterator[StepRecord | EpochRecord]:
    """Train from the current state of `training` to the end; yields a record per step and per epoch.

    Between two records, `training.state_dict()` is the state right after the last one.

    Args:
        training: changed in place.
        num_epochs: epochs of the whole training, unless its time is up before.
        validate: computes the metrics of a model.
        metric: the validation metric for schedules that follow one.
        state_of: selects the weights of the validated model that go into the records.
        validation_interval: epochs from one validation to the next; the last epoch always has one.
        is_start_validated: whether the first record is that of epoch 0, before any step.

    Raises:
        DivergenceError: where a loss is not finite, at the end of its epoch.
    """
    if is_start_validated:
        start = EpochRecord(0, None, None, None, {}, {})
        yield _with_validation(start, training, validate, metric, state_of)
    while not is_over(training, num_epochs):
        yield from _train_epoch(training, num_epochs)
        record = _finish_epoch(training)
        if training.epoch % validation_interval == 0 or is_over(training, num_epochs):
            record = _with_validation(record, training, validate, metric, state_of)
        yield record


def is_over(training: Training, num_epochs: int) -> bool:
    """Whether all epochs are done, or the time is up at the end of one."""
    return not training.losses and (training.epoch >= num_epochs or training.time_share >= 1)


def _train_epoch(training: Training, num_epochs: int) -> Iterator[StepRecord]:
    """The remaining steps of the current epoch, as far as time allows."""
    begun = training.planned_epoch
    training.begin_epoch(begun)
    num_steps = num_epochs * len(training.loader)
    started = time.perf_counter()
    for batch in training.loader.epoch(training.epoch, first_batch=len(training.losses)):
        if training.time_share >= 1:
            return
        if training.planned_epoch > begun:
            begun = training.planned_epoch
            training.begin_epoch(begun)
        lr, collapse = training.schedule.lr, None
        if training.collapse_loss is not None:
            collapse = training.collapse_loss(batch.labels, batch.views.shape[1])
            training.collapse_losses.append(collapse)
        batch.ranks.draw_apart(training.step)
        loss, grad_norm = train_step(training, batch, at_least=training.time_share * num_steps)
        training.step += 1
        training.seconds += _seconds_since(started, training, loss.device)
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
        started = time.perf_counter()


def _seconds_since(started: float, training: Training, device: torch.device) -> float:
    """How long a step has taken; where time is limited, with what its device has still to do."""
    if not training.max_seconds:
        return time.perf_counter() - started
    # A GPU is behind, and what it still has to do would count nowhere.
    wait_for(device)
    # All processes must agree on when the time is up.
    seconds: float = training.loader.ranks.agree(time.perf_counter() - started)
    return seconds


def _finish_epoch(training: Training) -> EpochRecord:
    require_all_finite(training)
    loss = float(torch.stack([value.cpu() for value in training.losses]).mean())
    collapse = fmean(training.collapse_losses) if training.collapse_losses else None
    record = EpochRecord(training.epoch + 1, loss, training.lrs[-1], collapse, {}, {})
    training.losses, training.lrs, training.collapse_losses = [], [], []
    training.epoch += 1
    return record


def _with_validation(
    record: EpochRecord,
    training: Training,
    validate: Validation,
    metric: str,
    state_of: Callable[[nn.Module], Mapping[str, Tensor]],
) -> EpochRecord:
    """The record with the metrics of the validated model and the weights that are kept."""
    metrics = _validate(training, validate, metric)
    state = state_of(training.validated)
    tensors = {name: value.detach().cpu().clone() for name, value in state.items()}
    return replace(record, metrics=metrics, tensors=tensors)


def _validate(training: Training, validate: Validation, metric: str) -> Metrics:
    """The metrics; several processes share the images, and the first ranks them while the others wait."""
    ranks = training.loader.ranks
    shared = validate if ranks.count == 1 else partial(validate, ranks=ranks)
    metrics: Metrics = ranks.agree(_metrics(training, shared), is_patient=True)
    training.schedule.observe(score(metrics, metric))
    return metrics


def _metrics(training: Training, validate: Callable[[nn.Module], Metrics]) -> Metrics:
    with training.precision.autocast():
        metrics = validate(training.validated)
        is_raw_asked = training.ema is not None and training.is_raw_validated
        raw = validate(training.model) if is_raw_asked else {}
    return {**metrics, **{f"raw.{name}": value for name, value in raw.items()}}


def require_all_finite(training: Training) -> None:
    """Stop a training that has diverged in one of the steps of this epoch.

    Raises:
        DivergenceError: see `require_finite`, for the first such step.
    """
    losses = torch.stack([loss.cpu() for loss in training.losses]).tolist()
    steps = range(training.step - len(losses) + 1, training.step + 1)
    for step, loss, lr in zip(steps, losses, training.lrs, strict=True):
        require_finite("loss", loss, step, lr)
    if training.grad_norm is not None and training.is_gradient_trusted:
        require_finite("gradient norm", float(training.grad_norm), training.step, training.lrs[-1])
    scale = training.precision.scaler.get_scale()
    if scale < 1:
        # Halved at every gradient that is not finite: by now none is finite, and every step is skipped.
        require_finite("gradient", math.nan, training.step, training.lrs[-1])


def require_finite(name: str, value: float, step: int, lr: float) -> None:
    """Stop a training that has diverged.

    Raises:
        DivergenceError: where the value is infinite or NaN.
    """
    if not math.isfinite(value):
        raise DivergenceError(
            f"{name} must be finite, got {value} at step {step} with learning rate {lr:.3g}; "
            "lower the learning rate, raise the temperature, lengthen the warm-up or clip the gradient"
        )


def train_step(
    training: Training, batch: Batch, is_scheduled: bool = True, at_least: float = 0
) -> tuple[Tensor, Tensor]:
    """One step of optimizer, schedule and average.

    Args:
        training: changed in place.
        batch: on any device.
        is_scheduled: whether the schedule steps as well.
        at_least: the step at which the schedule is then, if that is later than the next.

    Returns:
        The loss before the step and the norm of its gradient, on the device.
    """
    device = next(training.model.parameters()).device
    batch = batch.to(device)
    training.optimizer.zero_grad(set_to_none=True)
    loss = backward(training, batch)
    add_up(training.model, loss, batch)
    scaler = training.precision.scaler
    scaler.unscale_(training.optimizer)
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if training.max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, training.max_grad_norm, grad_norm)
    scaler.step(training.optimizer)
    scaler.update()
    if is_scheduled:
        training.schedule.step(at_least)
    if training.ema is not None:
        training.ema.update(training.model)
    return loss, grad_norm


def backward(training: Training, batch: Batch) -> Tensor:
    """Put the gradient of a batch into the parameters, times the scale of the precision; returns the loss.

    Of processes that share the batch, each has a share of both.
    """
    rows = batch.views.flatten(0, 1)
    micro = training.micro_batch_size
    if micro is not None and micro < len(batch.views):
        num_rows = micro * batch.views.shape[1]
        criterion = partial(training.criterion, batch=batch)
        return cached_backward(training.model, rows, num_rows, criterion, training.precision)
    with training.precision.autocast():
        loss = training.criterion(training.model(rows), batch)
    training.precision.scaler.scale(loss).backward()
    return loss.detach()


def add_up(model: nn.Module, loss: Tensor, batch: Batch) -> None:
    """Add up loss and gradient of the processes that share a batch, and take the mean of their statistics.

    Batch-norm has seen the part of each process. Moving averages are linear: their mean, weighted by the
    images, is what one process gets that has seen the parts as micro-batches.
    """
    if batch.ranks.count == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norms = [norm for norm in batch_norms(model) if norm.training]
    statistics = [norm.get_buffer(name) for norm in norms for name in ("running_mean", "running_var")]
    for buffer in statistics:
        buffer.mul_(batch.share)
    batch.ranks.sum_(loss, *gradients, *statistics)
