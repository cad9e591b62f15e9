"""Averages of weights over time (EMA) or checkpoints (SWA), and their batch-norm statistics."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class MovingAverage:
    """Exponential moving average of parameters and buffers.

    Torch's `AveragedModel` keeps its number of updates as a tensor on the CPU and copies it to the device
    once per dtype in every update, which needs a GPU sync.

    Args:
        model: the model to average; `module` holds the average, a copy on the same device.
        decay: weight of the old average in an update, from 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module, self.decay, self.num_updates = deepcopy(model), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average from the model; the first update, and counters in all, are copied."""
        averaged: list[tuple[Tensor, Tensor]] = []
        copied: list[tuple[Tensor, Tensor]] = []
        for pair in zip(_tensors(self.module), _tensors(model), strict=True):
            is_averaged = self.num_updates and pair[0].is_floating_point()
            (averaged if is_averaged else copied).append(pair)
        if averaged:
            averages, values = zip(*averaged, strict=True)
            torch._foreach_lerp_(averages, values, 1 - self.decay)
        if copied:
            averages, values = zip(*copied, strict=True)
            torch._foreach_copy_(averages, values)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The average and its number of updates."""
        return {"module": self.module.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self.num_updates = state["num_updates"]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def build_ema(model: nn.Module, decay_per_epoch: float, steps_per_epoch: int) -> MovingAverage:
    """Exponential moving average, to be updated after every step.

    Args:
        model: the model to average; the copy keeps its device.
        decay_per_epoch: weight of the average at the start of an epoch at its end, in (0, 1); the decay per
            step is `decay_per_epoch ** (1 / steps_per_epoch)`.
        steps_per_epoch: length of the training loader.

    Raises:
        ValueError: if the decay is not between 0 and 1.
    """
    if not 0 < decay_per_epoch < 1:
        raise ValueError(f"decay_per_epoch must be between 0 and 1, got {decay_per_epoch}")
    return MovingAverage(model, decay_per_epoch ** (1 / steps_per_epoch))


def average_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of model states; integer entries (counters) are taken from the first.

    Raises:
        ValueError: if there is no state, or the states have different entries.

    Source:
        Izmailov et al. 2018, arXiv:1803.05407, over the best checkpoints instead of the last.
    """
    if not states:
        raise ValueError("states must hold at least one model state, got none")
    if any(state.keys() != states[0].keys() for state in states):
        raise ValueError("states must have the same entries, got states of different models")
    average = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            total = torch.stack([state[name].double() for state in states]).mean(dim=0)
            average[name] = total.to(first.dtype)
        else:
            average[name] = first.clone()
    return average


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers of the model that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


@contextmanager
def cumulative_batch_norm(model: nn.Module) -> Iterator[None]:
    """Inside it, running statistics in train mode are the mean over all batches, weighted by their size.

    Torch's own cumulative average gives every batch the same weight. Each layer counts what it sees itself: a
    model may pass a batch on more than once, as one does that also embeds the mirror images.
    """
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    counts = dict.fromkeys(norms, 0)

    def weigh(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        counts[norm] += len(inputs[0])
        norm.momentum = len(inputs[0]) / counts[norm]

    hooks = [norm.register_forward_pre_hook(weigh) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics by those of the batches, with the same weight for each image.

    Raises:
        ValueError: if there is no batch.
    """
    was_training, count = model.training, 0
    # All else in evaluation mode: dropout and drop-path would make the statistics random and different.
    model.eval()
    for norm in batch_norms(model):
        norm.reset_running_stats()
        norm.train()
    with cumulative_batch_norm(model):
        for batch in batches:
            count += len(batch)
            model(batch)
    model.train(was_training)
    if not count:
        raise ValueError("batches must hold at least one image, got none")
