"""Parameter groups: weight decay, and learning rates by depth."""

import logging
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from supcon_pipeline.core.optim.depths import parameter_depths
from supcon_pipeline.core.optim.low_rank import has_low_rank_updates

logger = logging.getLogger(__name__)
# Where the models of this project have their backbone; all else are heads.
BACKBONE = "encoder.backbone"


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: weights with decay, the others without.

    Weights are the matrices and kernels with `weight` in their name. In torchvision and timm, nothing else
    has it: other parameters of two or more dimensions are tables of biases, positions, tokens and scales. A
    weight listed in the `no_weight_decay()` of a submodule, as in timm's networks, does not decay either.
    """
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    return _by_decay(model, trainable, weight_decay)


def groups_by_part(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups as of `parameter_groups` for the backbone and two for the heads; two if it is all one."""
    backbone: list[str] = []
    heads: list[str] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (backbone if name.startswith(f"{BACKBONE}.") else heads).append(name)
    return [group for part in (backbone, heads) if part for group in _by_decay(model, part, weight_decay)]


def groups_by_depth(
    model: nn.Module, weight_decay: float, lr: float, layer_decay: float, head_lr_factor: float
) -> list[dict[str, Any]]:
    """Two groups as of `parameter_groups` for each trained layer, the deepest first, and for the heads.

    The deepest layer has the rate `lr`, and each layer before it `layer_decay` times that of the next.

    Args:
        model: has a backbone as `encoder.backbone`; all its other parameters are heads.
        weight_decay: of weights.
        lr: the rate of the deepest layer.
        layer_decay: factor from one layer to the one before it, above 0 and at most 1.
        head_lr_factor: factor from `lr` to the rate of the heads.

    Source:
        Clark et al. 2020, arXiv:2003.10555, appendix A, with the layers of `parameter_depths`.
    """
    depths = parameter_depths(model.get_submodule(BACKBONE))
    deepest = max(depths.values())
    by_depth: dict[int, list[str]] = {depth: [] for depth in range(deepest, -1, -1)}
    backbone = dict(model.get_submodule(BACKBONE).named_parameters())
    for name, depth in depths.items():
        if backbone[name].requires_grad:
            by_depth[depth].append(f"{BACKBONE}.{name}")
    heads = [name for name, _ in model.named_parameters() if not name.startswith(f"{BACKBONE}.")]
    kind = "LoRA of layer" if has_low_rank_updates(model) else "layer"
    layers = [
        (f"{kind} {depth}", names, lr * layer_decay ** (deepest - depth))
        for depth, names in by_depth.items()
        if names
    ]
    groups = []
    for title, names, rate in [*layers, ("heads", heads, lr * head_lr_factor)]:
        added = _by_decay(model, names, weight_decay)
        size = sum(p.numel() for group in added for p in group["params"])
        logger.info("%s: %s parameters, learning rate %.3g", title, f"{size:,}", rate)
        groups += [{**group, "lr": rate} for group in added]
    return groups


def _by_decay(model: nn.Module, names: Iterable[str], weight_decay: float) -> list[dict[str, Any]]:
    exempt = _exempt_names(model)
    chosen = {name: model.get_parameter(name) for name in names}
    weights = {
        name
        for name, parameter in chosen.items()
        if parameter.ndim > 1
        and "weight" in name.rpartition(".")[2]
        and not any(fnmatchcase(name, pattern) for pattern in exempt)
    }
    return [
        {"params": [p for name, p in chosen.items() if name in weights], "weight_decay": weight_decay},
        {"params": [p for name, p in chosen.items() if name not in weights], "weight_decay": 0.0},
    ]


def _exempt_names(model: nn.Module) -> list[str]:
    """What submodules exempt from decay, as patterns of names in the whole model."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, part in model.named_modules()
        for name in getattr(part, "no_weight_decay", tuple)()
    ]
