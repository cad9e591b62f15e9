"""Gradient caching: the exact gradient over a batch that does not fit in memory, part by part."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.optim.averaging import batch_norms
from supcon_pipeline.core.training.precision import Precision


def cached_backward(
    model: nn.Module,
    rows: Tensor,
    num_rows: int,
    criterion: Callable[[Outputs], Tensor],
    precision: Precision,
) -> Tensor:
    """Add the gradient of `criterion(model(rows))` to the parameters, at most `num_rows` rows at a time.

    First, all outputs are computed without a graph, and the loss gives the gradient of each output. Then each
    part passes through the network again, with the same random state, and backpropagates its share of that
    gradient. Activations take the memory of one part, at the price of a second forward pass.

    Without batch statistics the gradient is that of the whole batch. With batch-norm, each part is normalised
    by its own statistics in both passes, and the running statistics are updated once, with the mean over the
    parts.

    Args:
        model: returns named tensors, rows first.
        rows: input of the model, rows first.
        num_rows: most rows of a part, at least 1; the sizes of parts differ by at most one.
        criterion: the loss, a scalar, from the outputs of all rows.
        precision: precision of the forward passes.

    Returns:
        The loss, detached.

    Source:
        Gao et al. 2021, arXiv:2101.06983, section 3.
    """
    num_parts = math.ceil(len(rows) / num_rows)
    parts = rows.tensor_split(num_parts)
    states, outputs = [], []
    with _moving_once(model) as keep:
        with torch.no_grad():
            for part in parts:
                states.append(_random_state(rows.device))
                with precision.autocast():
                    outputs.append(model(part))
                keep(len(part) / len(rows))
        whole = {
            name: torch.cat([output[name] for output in outputs]).requires_grad_() for name in outputs[0]
        }
        with precision.autocast():
            loss = criterion(whole)
        precision.scaler.scale(loss).backward()
        gradients = {
            name: tensor.grad.tensor_split(num_parts)
            for name, tensor in whole.items()
            if tensor.grad is not None
        }
        for index, part in enumerate(parts):
            with _replaying(states[index], rows.device), precision.autocast():
                output = model(part)
            torch.autograd.backward(
                [output[name] for name in gradients], [parts[index] for parts in gradients.values()]
            )
    return loss.detach()


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _replaying(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Repeat the random numbers drawn from `state` on; afterwards the generators are where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield


@contextmanager
def _moving_once(model: nn.Module) -> Iterator[Callable[[float], None]]:
    """Update the running statistics once over many forward passes, with the mean over those kept.

    Gives a function that keeps the statistics of the last pass, weighted by its share of the rows. Momentum
    is 1 in every pass, never a number per pass, for each of which a compiled model would be compiled again.
    """
    norms = [norm for norm in batch_norms(model) if norm.training]
    momenta = [norm.momentum for norm in norms]
    before = [[buffer.clone() for buffer in _statistics(norm)] for norm in norms]
    means = [[torch.zeros_like(buffer) for buffer in _statistics(norm)[:2]] for norm in norms]

    def keep(share: float) -> None:
        for norm, (mean, var) in zip(norms, means, strict=True):
            mean.add_(norm.get_buffer("running_mean"), alpha=share)
            var.add_(norm.get_buffer("running_var"), alpha=share)

    for norm in norms:
        # So that the running statistics are those of the last pass alone.
        norm.momentum = 1.0
    try:
        yield keep
    finally:
        for norm, momentum, old, mean in zip(norms, momenta, before, means, strict=True):
            norm.momentum = momentum
            weight = momentum if momentum is not None else 1 / float(old[2] + 1)
            moved = [torch.lerp(was, now, weight) for was, now in zip(old, mean, strict=False)]
            for buffer, value in zip(_statistics(norm), [*moved, old[2] + 1], strict=True):
                buffer.copy_(value)


def _statistics(norm: _BatchNorm) -> list[Tensor]:
    return [norm.get_buffer(name) for name in ("running_mean", "running_var", "num_batches_tracked")]
