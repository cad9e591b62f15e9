"""All that changes while a model is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.optim.averaging import MovingAverage
from supcon_pipeline.core.optim.schedules import Schedule
from supcon_pipeline.core.training.precision import Precision, choose_precision
from supcon_pipeline.core.training.random_states import random_states, set_random_states
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
