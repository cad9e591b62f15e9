"""Parameter groups, optimizers and schedules."""

import math

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The trainable parameters in two groups: weights with decay, biases and norms without."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(
    model: nn.Module, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> Optimizer:
    """Stochastic gradient descent over `parameter_groups`."""
    return SGD(parameter_groups(model, weight_decay), lr=lr, momentum=momentum, nesterov=nesterov)


def warmup_cosine_factor(step: int, num_steps: int, num_warmup_steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Rises linearly to 1 over the warm-up, then falls along a half cosine that would reach 0 one step after
    the last (Loshchilov and Hutter 2016, arXiv:1608.03983, Eq. 5, one cycle).
    """
    if step < num_warmup_steps:
        return (step + 1) / (num_warmup_steps + 1)
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2


def build_schedule(optimizer: Optimizer, num_steps: int, num_warmup_steps: int) -> LambdaLR:
    """Warm-up and cosine, stepped after every optimizer step.

    Raises:
        ValueError: where the warm-up is not shorter than the training.
    """
    if num_warmup_steps >= num_steps:
        raise ValueError(
            f"warmup_epochs must be fewer than num_epochs, got {num_warmup_steps} of {num_steps} steps"
        )
    return LambdaLR(optimizer, lambda step: warmup_cosine_factor(step, num_steps, num_warmup_steps))
