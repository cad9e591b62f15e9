"""Contrastive loss and cross-entropy in one stage."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from supcon_pipeline.core.losses.inputs import at_least_float32


def joint_loss(
    contrastive: Float[Tensor, ""],
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    weight: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """A contrastive loss plus the weighted cross-entropy of a classifier head trained alongside.

    Args:
        contrastive: contrastive loss of the same batch.
        logits: output of the classifier head; with several views, one row per view.
        labels: class or class probabilities of each row of logits.
        weight: weight of the cross-entropy, at least 0.
        label_smoothing: in [0, 1].

    Raises:
        ValueError: if a shape or a number is invalid.

    Source:
        Cui et al. 2022, arXiv:2211.03646: cross-entropy and supervised contrastive loss in one stage.
    """
    if logits.ndim != 2 or labels.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            "logits must be [batch, classes] with labels [batch] or [batch, classes], got "
            f"{list(logits.shape)} and {list(labels.shape)}; repeat the labels for each view"
        )
    if not weight >= 0:
        raise ValueError(f"weight must be at least 0, got {weight}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        labels = labels.to(logits.dtype) if labels.is_floating_point() else labels.long()
        return contrastive + weight * functional.cross_entropy(
            logits, labels, label_smoothing=label_smoothing
        )
