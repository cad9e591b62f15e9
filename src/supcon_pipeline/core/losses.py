"""Loss functions of stage 1."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def supcon_loss(
    projections: Float[Tensor, "batch views dim"],
    labels: Int[Tensor, " batch"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss, averaged over the anchors that have a positive.

    Every view of every image is an anchor; its positives are all other rows of its class. Similarities are
    float32 whatever the precision of the input. A batch without any positive gives 0 with zero gradient.

    Args:
        projections: L2-normalised rows.
        labels: the class of each image.
        temperature: above 0.

    Raises:
        ValueError: where a shape is off or the temperature is not above 0.

    Source:
        Khosla et al. 2020, arXiv:2004.11362, Eq. 2 (L_out), without the factor temperature / base
        temperature of the reference code, and as a mean instead of a sum over the anchors.
    """
    if projections.ndim != 3 or labels.shape != projections.shape[:1]:
        raise ValueError(
            "projections must be [batch, views, dim] with labels [batch], got "
            f"{list(projections.shape)} and {list(labels.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    num_views = projections.shape[1]
    with torch.autocast(projections.device.type, enabled=False):
        rows = projections.flatten(0, 1)
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        row_labels = labels.repeat_interleave(num_views)
        is_self = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        is_positive = (row_labels[:, None] == row_labels[None, :]) & ~is_self
        similarity = rows @ rows.T / temperature
        # Masked before the maximum is taken: an anchor's similarity to itself must not set the scale.
        log_normaliser = similarity.masked_fill(is_self, -torch.inf).logsumexp(dim=1)
        num_positives = is_positive.sum(dim=1)
        positive_mean = (similarity * is_positive).sum(dim=1) / num_positives.clamp(min=1)
        has_positive = num_positives > 0
        losses = torch.where(has_positive, log_normaliser - positive_mean, similarity.new_zeros(()))
        return losses.sum() / has_positive.sum().clamp(min=1)
