"""Batches larger than memory: the gradient of a loss over a whole batch, one part of it at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supcon_pipeline.core.averaging import batch_norms, cumulative_batch_norm
from supcon_pipeline.core.encoder import Outputs
from supcon_pipeline.core.precision import Precision


def cached_backward(
    model: nn.Module,
    rows: Tensor,
    num_rows: int,
    criterion: Callable[[Outputs], Tensor],
    precision: Precision,
) -> Tensor:
    """Add the gradient of `criterion(model(rows))` to the parameters, `num_rows` rows at a time.

    All outputs are computed first, without a graph; the loss gives the gradient of each output; then every
    part passes the network again, with the random state it had, and takes that gradient backward. Memory
    for activations is that of one part; the price is one more forward pass.

    Without batch statistics the gradient is that of the whole batch. With batch-norm each part is normalised
    by its own statistics, in both passes, and the running statistics move once, by their mean over the parts.

    Args:
        model: gives named tensors with the rows first.
        rows: what the model takes, rows first.
        num_rows: of a part, at least 1.
        criterion: a scalar from the outputs of all rows.
        precision: of the forward passes.

    Returns:
        The loss, detached.

    Source:
        Gao et al. 2021, arXiv:2101.06983, section 3.
    """
    parts = rows.split(num_rows)
    states, outputs = [], []
    with torch.no_grad(), _moving_once(model) as announce:
        for part in parts:
            announce(len(part))
            states.append(_random_state(rows.device))
            with precision.autocast():
                outputs.append(model(part))
    whole = {name: torch.cat([output[name] for output in outputs]).requires_grad_() for name in outputs[0]}
    with precision.autocast():
        loss = criterion(whole)
    precision.scaler.scale(loss).backward()
    gradients = {
        name: tensor.grad.split(num_rows) for name, tensor in whole.items() if tensor.grad is not None
    }
    with _not_moving(model):
        for index, part in enumerate(parts):
            with _replaying(states[index], rows.device), precision.autocast():
                output = model(part)
            names = list(gradients)
            torch.autograd.backward(
                [output[name] for name in names], [gradients[name][index] for name in names]
            )
    return loss.detach()


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _replaying(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Random numbers as they came from `state` on; afterwards as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield


@contextmanager
def _moving_once(model: nn.Module) -> Iterator[Callable[[int], None]]:
    """Several forward passes move the running statistics as one does, by the mean over the passes."""
    norms = _moving_norms(model)
    before = [[buffer.clone() for buffer in _statistics(norm)] for norm in norms]
    with cumulative_batch_norm(model) as announce:
        yield announce
    for norm, (old_mean, old_var, old_count) in zip(norms, before, strict=True):
        mean, var, count = _statistics(norm)
        weight = norm.momentum if norm.momentum is not None else 1 / float(old_count + 1)
        mean.lerp_(old_mean, 1 - weight)
        var.lerp_(old_var, 1 - weight)
        count.copy_(old_count + 1)


@contextmanager
def _not_moving(model: nn.Module) -> Iterator[None]:
    """Forward passes leave the running statistics as they are."""
    norms = _moving_norms(model)
    before = [(norm.momentum, _statistics(norm)[2].clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            _statistics(norm)[2].copy_(count)


def _moving_norms(model: nn.Module) -> list[_BatchNorm]:
    return [norm for norm in batch_norms(model) if norm.training]


def _statistics(norm: _BatchNorm) -> list[Tensor]:
    return [norm.get_buffer(name) for name in ("running_mean", "running_var", "num_batches_tracked")]
