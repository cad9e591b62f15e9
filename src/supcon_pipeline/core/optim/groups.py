"""Parameter groups for weight decay."""

from fnmatch import fnmatchcase
from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: weights with decay, the others without.

    Weights are the matrices and kernels with `weight` in their name. In torchvision and timm, nothing else
    has it: other parameters of two or more dimensions are tables of biases, positions, tokens and scales. A
    weight listed in the `no_weight_decay()` of a submodule, as in timm's networks, does not decay either.
    """
    exempt = _exempt_names(model)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = {
        name
        for name, parameter in trainable.items()
        if parameter.ndim > 1
        and "weight" in name.rpartition(".")[2]
        and not any(fnmatchcase(name, pattern) for pattern in exempt)
    }
    return [
        {"params": [p for name, p in trainable.items() if name in weights], "weight_decay": weight_decay},
        {"params": [p for name, p in trainable.items() if name not in weights], "weight_decay": 0.0},
    ]


def _exempt_names(model: nn.Module) -> list[str]:
    """What submodules exempt from decay, as patterns of names in the whole model."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, part in model.named_modules()
        for name in getattr(part, "no_weight_decay", tuple)()
    ]
