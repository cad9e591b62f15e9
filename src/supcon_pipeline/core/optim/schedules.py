"""Learning-rate schedules: warm-up, then a shape."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch.optim import Optimizer

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.optim.options import SCHEDULES, complete_options


def warmup_cosine_factor(step: int, num_steps: int, num_warmup_steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Rises linearly to 1 over the warm-up, then falls along a half cosine that would reach 0 one step after
    the last (Loshchilov and Hutter 2016, arXiv:1608.03983, Eq. 5, one cycle).
    """
    if step < num_warmup_steps:
        return _rise(step, num_warmup_steps)
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2


def warmup_onecycle_factor(step: int, num_steps: int, num_warmup_steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Rises linearly from 1/25 to 1 over the warm-up, then falls linearly to 1/250,000 at the last step.

    Source:
        Smith and Topin 2017, arXiv:1708.07120, with the ends of torch's `OneCycleLR`
        (`anneal_strategy="linear"`, `cycle_momentum=False`): the momentum stays where it is.
    """
    first, last = 1 / 25, 1 / 25e4
    if step < num_warmup_steps:
        return first + (1 - first) * step / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, num_steps - 1 - num_warmup_steps)
    return 1 + (last - 1) * min(1.0, progress)


def warmup_step_factor(
    step: int,
    num_steps: int,
    num_warmup_steps: int,
    milestones: Sequence[float] = (),
    decay_factor: float = 1.0,
) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Rises linearly to 1 over the warm-up, then is multiplied by `decay_factor` at each milestone, a share of
    all steps. Without milestones it stays at 1.
    """
    if step < num_warmup_steps:
        return _rise(step, num_warmup_steps)
    return math.prod(decay_factor for milestone in milestones if step >= round(milestone * num_steps))


def _rise(step: int, num_warmup_steps: int) -> float:
    """Equal steps to 1, the first of them taken already: a step at rate 0 would be wasted."""
    return (step + 1) / (num_warmup_steps + 1)


@dataclass
class Plateau:
    """How far the learning rate has come down because a metric did not improve.

    Steps as torch's `ReduceLROnPlateau` does with a threshold of 0: any improvement is one, as it is for the
    choice of checkpoints. NaN is none.

    Args:
        decay_factor: of each reduction.
        patience: validations in a row without improvement that are borne; the next one reduces.
        best: score so far.
        num_stalled: validations without improvement since the last improvement or reduction.
        factor: what the reductions come to.
    """

    decay_factor: float
    patience: int
    best: float = -math.inf
    num_stalled: int = 0
    factor: float = 1.0

    def observe(self, score: float) -> None:
        """Take in the score of one more validation, of which up is better."""
        self.num_stalled = 0 if score > self.best else self.num_stalled + 1
        if score > self.best:
            self.best = score
        if self.num_stalled > self.patience:
            self.factor *= self.decay_factor
            self.num_stalled = 0


class Schedule:
    """The learning rate of every group: its peak, times a factor of the step, times that of a plateau.

    It is none of torch's `LRScheduler`s: their plateau and their warm-up each set the rate without regard to
    the other, and they warn where a gradient scaler skips the first step.

    Args:
        optimizer: whose groups hold their peak rates; anything with `param_groups`.
        factor: of the step, counted from 0.
        plateau: where the rate follows a metric too; it is asked once the warm-up is over.
        num_warmup_steps: before which metrics are not asked.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: Callable[[int], float],
        plateau: Plateau | None = None,
        num_warmup_steps: int = 0,
    ):
        self._optimizer, self._factor, self._plateau = optimizer, factor, plateau
        self._num_warmup_steps = num_warmup_steps
        # As torch's schedulers do: the state of an optimizer carries the peak beside the rate of the moment.
        self._peaks = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self._step = 0
        self._set_rates()

    @property
    def lr(self) -> float:
        """The learning rate that the next optimizer step will have, of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self) -> None:
        """Go on to the next step; after every optimizer step."""
        self._step += 1
        self._set_rates()

    def observe(self, score: float) -> None:
        """Take in the score of a validation, after the last `step` before it; up is better.

        Only a plateau heeds it.
        """
        if self._plateau is not None and self._step >= self._num_warmup_steps:
            self._plateau.observe(score)
            self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from: numbers, strings and None."""
        return {"step": self._step, "plateau": self._plateau and asdict(self._plateau)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another schedule, built with the same arguments, was; sets the rates too."""
        self._step = state["step"]
        self._plateau = state["plateau"] and Plateau(**state["plateau"])
        self._set_rates()

    def _set_rates(self) -> None:
        factor = self._factor(self._step) * (self._plateau.factor if self._plateau else 1.0)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor


def check_schedule(
    name: str, num_epochs: int, warmup_epochs: int, milestones: Sequence[float] | None = None
) -> None:
    """Refuse a schedule that never has its peak rate.

    Raises:
        InputError: where the warm-up is not shorter than the training, `onecycle` has none, or the milestones
            are not ascending shares of the training after the warm-up.
    """
    if warmup_epochs >= num_epochs:
        raise InputError(f"warmup_epochs must be fewer than num_epochs ({num_epochs}), got {warmup_epochs}")
    if name == "onecycle" and not warmup_epochs:
        raise InputError("warmup_epochs must be at least 1 with onecycle, got 0; its rise is the warm-up")
    if milestones is None:
        return
    bounds = [warmup_epochs / num_epochs, *milestones, 1]
    if not milestones or any(right <= left for left, right in pairwise(bounds)):
        raise InputError(
            f"milestones must be ascending shares of the training, above that of the warm-up ({bounds[0]:g}) "
            f"and below 1, got {list(milestones)}"
        )


def build_schedule(
    optimizer: Optimizer,
    steps_per_epoch: int,
    name: str,
    num_epochs: int,
    warmup_epochs: int,
    milestones: Sequence[float] | None = None,
    decay_factor: float | None = None,
    patience: int | None = None,
) -> Schedule:
    """Linear warm-up, then the shape of a name.

    Args:
        optimizer: whose groups hold their peak rates.
        steps_per_epoch: at least 1.
        name: one of `SCHEDULES`.
        num_epochs: of the training.
        warmup_epochs: of these with rising rate.
        milestones: of `step`, as shares of the training, ascending; None here and below for the usual value.
        decay_factor: of `step` and `plateau`, what one reduction multiplies the rate by.
        patience: of `plateau`, validations in a row without improvement that are borne.

    Raises:
        InputError: where the name is unknown, an option is given that it does not use, or the rate would
            never have its peak.
    """
    given = {"milestones": milestones, "decay_factor": decay_factor, "patience": patience}
    options = complete_options(SCHEDULES, name, given)
    check_schedule(name, num_epochs, warmup_epochs, options.get("milestones"))
    plateau = None
    if name == "plateau":
        plateau, options = Plateau(**options), {}
    curves = {"cosine": warmup_cosine_factor, "onecycle": warmup_onecycle_factor}
    num_steps, num_warmup_steps = num_epochs * steps_per_epoch, warmup_epochs * steps_per_epoch
    factor = partial(
        curves.get(name, warmup_step_factor),
        num_steps=num_steps,
        num_warmup_steps=num_warmup_steps,
        **options,
    )
    return Schedule(optimizer, factor, plateau, num_warmup_steps)
