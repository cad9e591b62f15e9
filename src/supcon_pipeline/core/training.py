"""Training: step, epoch, fit. Yields records and writes nothing."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from supcon_pipeline.core.batches import Batch, ViewLoader
from supcon_pipeline.core.losses import supcon_loss
from supcon_pipeline.core.optim import Schedule

LossFunction = Callable[[nn.Module, Batch], Tensor]
Metrics = dict[str, float]


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did; `loss` stays on its device, so that reading it is the reader's choice."""

    step: int
    loss: Tensor
    lr: float
    num_images: int


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to: its number from 1, mean loss, validation metrics and the validated weights."""

    epoch: int
    loss: float
    lr: float
    metrics: Metrics
    tensors: dict[str, Tensor]


def pick_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def contrastive_loss(temperature: float) -> LossFunction:
    """The supervised contrastive loss of a `ContrastiveModel` on a batch of views."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        projection = model(batch.views.flatten(0, 1)).projection
        return supcon_loss(projection.unflatten(0, batch.views.shape[:2]), batch.labels, temperature)

    return loss


def classification_loss(label_smoothing: float) -> LossFunction:
    """Cross-entropy of a classifier on every view of a batch.

    Source:
        Szegedy et al. 2015, arXiv:1512.00567, section 7, for the smoothing.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.views.flatten(0, 1))
        labels = batch.labels.repeat_interleave(batch.views.shape[1])
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    return loss


def fit(
    model: nn.Module,
    loss_function: LossFunction,
    loader: ViewLoader,
    optimizer: Optimizer,
    schedule: Schedule,
    num_epochs: int,
    validate: Callable[[nn.Module], Metrics],
    metric: str,
    state_of: Callable[[nn.Module], Mapping[str, Tensor]] = lambda model: model.state_dict(),
    ema: AveragedModel | None = None,
) -> Iterator[StepRecord | EpochRecord]:
    """Train `model` in place, one record per step and one per epoch.

    Args:
        model: on the device to train on.
        loss_function: the loss of the model on a batch.
        loader: the training batches of each epoch.
        optimizer: of the model's parameters.
        schedule: stepped after every optimizer step, and told the metric of every epoch.
        num_epochs: at least 1.
        validate: the metrics of a model; asked once per epoch.
        metric: which of them the schedule is told.
        state_of: which weights of the validated model the records carry.
        ema: an average of the model; where given, it is what is validated and carried.

    Raises:
        FloatingPointError: where the loss of an epoch is not finite.
    """
    step = 0
    for epoch in range(1, num_epochs + 1):
        model.train()
        losses: list[Tensor] = []
        lr = 0.0
        for batch in loader.epoch(epoch - 1):
            step, lr = step + 1, schedule.lr
            loss = train_step(model, loss_function, batch, optimizer, schedule)
            if ema is not None:
                ema.update_parameters(model)
            losses.append(loss)
            yield StepRecord(step, loss, lr, len(batch.labels))
        mean_loss = float(torch.stack(losses).mean())
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"loss must be finite, got {mean_loss} in epoch {epoch} at learning rate {lr:.3g}; "
                "lower the learning rate or raise the temperature"
            )
        validated = model if ema is None else ema.module
        tensors = {name: value.detach().cpu().clone() for name, value in state_of(validated).items()}
        metrics = validate(validated)
        schedule.epoch_end(metrics[metric])
        yield EpochRecord(epoch, mean_loss, lr, metrics, tensors)


def train_step(
    model: nn.Module, loss_function: LossFunction, batch: Batch, optimizer: Optimizer, schedule: Schedule
) -> Tensor:
    """One step of the optimizer and of the schedule; the loss before it, detached, on its device."""
    device = next(model.parameters()).device
    batch = Batch(batch.views.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True))
    optimizer.zero_grad(set_to_none=True)
    loss = loss_function(model, batch)
    loss.backward()
    optimizer.step()
    schedule.step()
    return loss.detach()
