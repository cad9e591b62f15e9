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


def warmup_cosine_factor(step: float, num_steps: int, num_warmup_steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Rises linearly to 1 over the warm-up, then falls along a half cosine that would reach 0 one step after
    the last (Loshchilov and Hutter 2016, arXiv:1608.03983, Eq. 5, one cycle).
    """
    if step < num_warmup_steps:
        return _rise(step, num_warmup_steps)
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2


def warmup_onecycle_factor(step: float, num_steps: int, num_warmup_steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Rises linearly from 1/25 to 1 over the warm-up, then falls linearly to 1/250,000 at the last step.

    Source:
        Smith and Topin 2017, arXiv:1708.07120, with the start and end of torch's `OneCycleLR`
        (`anneal_strategy="linear"`, `cycle_momentum=False`): the momentum does not change.
    """
    first, last = 1 / 25, 1 / 25e4
    if step < num_warmup_steps:
        return first + (1 - first) * step / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, num_steps - 1 - num_warmup_steps)
    return 1 + (last - 1) * min(1.0, progress)


def warmup_step_factor(
    step: float,
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


def _rise(step: float, num_warmup_steps: int) -> float:
    """Equal increments up to 1, starting above 0: a step at rate 0 would be wasted."""
    return (step + 1) / (num_warmup_steps + 1)


@dataclass
class Plateau:
    """Reductions of the learning rate when a metric stops improving.

    Works like torch's `ReduceLROnPlateau` with a threshold of 0: any improvement counts, as in the choice of
    checkpoints. NaN is no improvement.

    Args:
        decay_factor: factor of each reduction.
        patience: validations in a row without improvement that are tolerated; the next one reduces.
        best: best score so far.
        num_stalled: validations without improvement since the last improvement or reduction.
        factor: product of all reductions.
    """

    decay_factor: float
    patience: int
    best: float = -math.inf
    num_stalled: int = 0
    factor: float = 1.0

    def observe(self, score: float) -> None:
        """Record the score of a validation; higher is better."""
        self.num_stalled = 0 if score > self.best else self.num_stalled + 1
        if score > self.best:
            self.best = score
        if self.num_stalled > self.patience:
            self.factor *= self.decay_factor
            self.num_stalled = 0


class Schedule:
    """The learning rate of every group: its peak, times a factor of the step, times that of a plateau.

    Not a torch `LRScheduler`: torch's plateau and warm-up each set the rate regardless of the other, and warn
    if a gradient scaler skips the first step.

    Args:
        optimizer: its groups hold their peak rates; anything with `param_groups`.
        factor: the factor of a step, counted from 0, or of a place between two steps.
        plateau: set if the rate also follows a metric, once the warm-up is over.
        num_warmup_steps: steps during which metrics are ignored.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: Callable[[float], float],
        plateau: Plateau | None = None,
        num_warmup_steps: int = 0,
    ):
        self._optimizer, self._factor, self._plateau = optimizer, factor, plateau
        self._num_warmup_steps = num_warmup_steps
        # As in torch's schedulers: the state of an optimizer holds the peak beside the current rate.
        self._peaks = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self._step: float = 0
        self._set_rates()

    @property
    def lr(self) -> float:
        """The learning rate of the first group in the next optimizer step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, at_least: float = 0) -> None:
        """Advance to the next step, or to `at_least` if that is later; call after every optimizer step."""
        self._step = max(self._step + 1, at_least)
        self._set_rates()

    @property
    def position(self) -> float:
        """How far the schedule is, in steps; where time is limited, that can be ahead of the steps done."""
        return self._step

    def observe(self, score: float) -> None:
        """Record the score of a validation, after the last `step` before it; higher is better.

        Only a plateau uses it.
        """
        if self._plateau is not None and self._step >= self._num_warmup_steps:
            self._plateau.observe(score)
            self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """The state for `load_state_dict`: numbers, strings and None."""
        return {"step": self._step, "plateau": self._plateau and asdict(self._plateau)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a schedule built with the same arguments; sets the rates too."""
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
    """Reject a schedule that never reaches its peak rate.

    Raises:
        InputError: if the warm-up is not shorter than the training, `onecycle` has none, or the milestones
            are not ascending shares of the training after the warm-up.
    """
    if warmup_epochs >= num_epochs:
        raise InputError(f"warmup_epochs must be fewer than num_epochs ({num_epochs}), got {warmup_epochs}")
    if name == "onecycle" and not warmup_epochs:
        raise InputError("warmup_epochs must be at least 1 with onecycle, got 0; the warm-up is its rise")
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
    """Linear warm-up, then a shape by name.

    Args:
        optimizer: its groups hold their peak rates.
        steps_per_epoch: at least 1.
        name: one of `SCHEDULES`.
        num_epochs: length of the training.
        warmup_epochs: how many of these have a rising rate.
        milestones: for `step`, ascending shares of the training; here and below, None is the default.
        decay_factor: for `step` and `plateau`, the factor of one reduction of the rate.
        patience: for `plateau`, validations in a row without improvement that are tolerated.

    Raises:
        InputError: if the name is unknown or does not use a given option, or the rate would never reach its
            peak.
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
