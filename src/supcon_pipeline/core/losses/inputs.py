"""What the contrastive losses have in common: checks, types and classes of their inputs."""

import torch
from jaxtyping import Int
from torch import Tensor


def check_inputs(projections: Tensor, labels: Tensor | None, temperature: float) -> None:
    """Refuse what no contrastive loss is defined for.

    Raises:
        ValueError: where a shape, a type or the temperature is off.
    """
    if projections.ndim != 3 or not projections.is_floating_point():
        raise ValueError(
            f"projections must be floats [batch, views, dim], got {projections.dtype} "
            f"{list(projections.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if labels is None:
        return
    is_soft = labels.is_floating_point() and labels.ndim == 2
    is_hard = not labels.is_floating_point() and labels.dtype != torch.bool and labels.ndim == 1
    if not (is_soft or is_hard) or len(labels) != len(projections):
        raise ValueError(
            "labels must be integers [batch] or class probabilities [batch, classes] for projections "
            f"{list(projections.shape)}, got {labels.dtype} {list(labels.shape)}"
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor, in float32 where it is in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def anchor_classes(labels: Int[Tensor, " batch"] | None, projections: Tensor) -> Int[Tensor, " batch"]:
    """Class numbers in [0, batch), with gaps.

    The place among the sorted labels names a class without `unique`, whose size a GPU would have to report.
    """
    if labels is None:
        return torch.arange(len(projections), device=projections.device)
    labels = labels.contiguous()
    return torch.searchsorted(labels.sort().values, labels)


def class_sizes(classes: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """How many rows are of the class of each row; `bincount` would wait for a GPU to report the largest."""
    ordered = classes.sort().values
    return torch.searchsorted(ordered, classes, right=True) - torch.searchsorted(ordered, classes)
