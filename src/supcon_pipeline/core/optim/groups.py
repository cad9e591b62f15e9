"""Which parameters decay."""

from fnmatch import fnmatchcase
from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: weights with decay, the others without.

    Weights are the matrices and kernels that bear the name. Torchvision and timm give it to nothing else, and
    what else has two dimensions or more are tables of biases, positions, tokens and scales. Nor does a
    weight decay that a part of the model names in its `no_weight_decay()`, as timm's networks do.
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
    """What the parts of a model name, as patterns of the names in the whole model."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, part in model.named_modules()
        for name in getattr(part, "no_weight_decay", tuple)()
    ]
