"""The state of a training: everything that changes while a model is trained."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.optim.averaging import MovingAverage
from supcon_pipeline.core.optim.blending import StartBlend
from supcon_pipeline.core.optim.freezing import Freezing
from supcon_pipeline.core.optim.schedules import Schedule
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.training.memory import ProjectionMemory
from supcon_pipeline.core.training.precision import Precision, choose_precision
from supcon_pipeline.core.training.random_states import random_states, set_random_states
from supcon_pipeline.core.views.loading import Batch, ViewLoader


class Criterion(Protocol):
    """The loss of a model's outputs, whose rows are the views of the first image, then of the next."""

    def __call__(self, outputs: Outputs, batch: Batch) -> Tensor:
        """A scalar."""


Metrics = dict[str, float]


class Validation(Protocol):
    """The metrics of a model."""

    def __call__(self, model: nn.Module, *, ranks: Ranks = ALONE) -> Metrics:
        """The metrics; of processes that share the work, the first finds them, and the others nothing."""


_POSITION = ("epoch", "step", "seconds", "losses", "lrs", "grad_norm", "collapse_losses")


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step; tensors stay on their device, because reading them waits for it.

    `collapse_loss` is what the loss would be if all images had the same projection. Gradients in float16 are
    not trusted: an occasional overflow is normal there, and the step is skipped.
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
    """One epoch: its number from 1, mean loss, last learning rate, validation metrics and validated weights.

    Metrics and weights are empty where the epoch was not validated. Epoch 0 is the validation of the weights
    that training starts from, without loss and learning rate.
    """

    epoch: int
    loss: float | None
    lr: float | None
    collapse_loss: float | None
    metrics: Metrics
    tensors: dict[str, Tensor]


@dataclass
class Training:
    """Everything that changes while a model is trained; another process can resume from its `state_dict`.

    Args:
        model: the model, on the device to train on.
        criterion: the loss of the model's output for a batch.
        loader: the training batches of each epoch.
        optimizer: the optimizer of the model's parameters.
        schedule: the learning-rate schedule of the optimizer.
        precision: precision of forward passes, in training and validation.
        ema: moving average of the model; where given, it is validated and goes into the records.
        is_raw_validated: whether records also hold the metrics of the model that is not averaged, named
            `raw.<metric>`.
        micro_batch_size: images per forward pass, for batches that do not fit in memory; the gradient is that
            of the whole batch.
        max_grad_norm: gradients with a larger norm are scaled down to it.
        collapse_loss: from labels and number of views, the loss if all images had the same projection.
        freezing: what of the model is not trained in an epoch.
        blend: mixes the encoder with the weights it started from, for what is validated and kept.
        memory: projections of earlier batches, with which the criterion compares those of a batch.
        max_seconds: training ends after as many; the schedule then follows the time where that is further.
        epoch: epochs done.
        step: steps done.
        seconds: time that these steps took, with the wait for their views.
        losses: losses of the steps done in the current epoch, on their device.
        lrs: learning rates of these steps.
        grad_norm: gradient norm of the last step.
        collapse_losses: collapse losses of these steps, where the stage has one.
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
    freezing: Freezing | None = None
    blend: StartBlend | None = None
    memory: ProjectionMemory | None = None
    max_seconds: float | None = None
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    grad_norm: Tensor | None = None
    collapse_losses: list[float] = field(default_factory=list)

    @property
    def validated(self) -> nn.Module:
        """The model that is validated and kept."""
        model = self.model if self.ema is None else self.ema.module
        return model if self.blend is None else self.blend.of(model)

    @property
    def seconds_left(self) -> float:
        """How long the training may still go on."""
        return self.max_seconds - self.seconds if self.max_seconds else math.inf

    @property
    def time_share(self) -> float:
        """The share of the time that is used up; 0 where time is not limited."""
        return self.seconds / self.max_seconds if self.max_seconds else 0.0

    @property
    def planned_epoch(self) -> int:
        """The epoch, counted from 0, whose rate the next step has; where time is limited, past the passes."""
        return self.loader.planned_epoch(self.epoch)

    @property
    def is_gradient_trusted(self) -> bool:
        """Whether a gradient that is not finite is an error."""
        return self.precision.name != "float16"

    def begin_epoch(self, epoch: int) -> None:
        """Put the model in the mode to train an epoch, counted from 0."""
        self.model.train()
        if self.freezing is not None:
            self.freezing.apply(self.model, epoch)
        if self.memory is not None:
            self.memory.begin_epoch(epoch)

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.precision.scaler,
        }
        optional = {"ema": self.ema, "memory": self.memory}
        return {**parts, **{name: part for name, part in optional.items() if part is not None}}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, schedule, average, memory, scaler, position and random states."""
        position = {name: getattr(self, name) for name in _POSITION}
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, **position, "precision": self.precision.name, "random": random_states()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, so that the next steps are those that would have followed.

        The precision is restored too, because `auto` measures and may choose differently next time.

        Raises:
            RuntimeError: where the weights do not fit the model.
        """
        self.precision = choose_precision(state["precision"], self.precision.device)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name in _POSITION:
            setattr(self, name, state[name])
        set_random_states(state["random"])
