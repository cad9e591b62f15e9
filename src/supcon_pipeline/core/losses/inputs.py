"""Checks and conversions of inputs that the contrastive losses share."""

import torch
from jaxtyping import Int
from torch import Tensor


def check_inputs(projections: Tensor, labels: Tensor | None, temperature: float) -> None:
    """Reject inputs for which no contrastive loss is defined.

    Raises:
        ValueError: if a shape, a dtype or the temperature is invalid.
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
    """The tensor, cast to float32 if it is in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def anchor_classes(labels: Int[Tensor, " batch"] | None, projections: Tensor) -> Int[Tensor, " batch"]:
    """Class indices in [0, batch), with gaps.

    A class is numbered by its first position among the sorted labels: `unique` would need a GPU sync.
    """
    if labels is None:
        return torch.arange(len(projections), device=projections.device)
    labels = labels.contiguous()
    return torch.searchsorted(labels.sort().values, labels)


def class_sizes(classes: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The number of rows in the class of each row; `bincount` would need a GPU sync."""
    ordered = classes.sort().values
    return torch.searchsorted(ordered, classes, right=True) - torch.searchsorted(ordered, classes)
