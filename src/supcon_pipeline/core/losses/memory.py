"""Supervised contrastive loss with projections of earlier batches as further references."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from supcon_pipeline.core.losses.inputs import at_least_float32, check_inputs, class_sizes
from supcon_pipeline.core.losses.tiles import sum_over_anchors
from supcon_pipeline.core.ranks import ALONE, Ranks

# Elements of a tile of similarities.
MEMORY_TILE = 2**22


def supcon_memory_loss(
    projections: Float[Tensor, "batch views dim"],
    labels: Int[Tensor, " batch"],
    references: Float[Tensor, "references dim"],
    reference_labels: Int[Tensor, " references"],
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss of a batch, whose rows are also compared with remembered references.

    The references of the class of an anchor are positives of it, and all are in its denominator; they are no
    anchors and get no gradient. Without references, this is `supcon_loss`. Exact, with memory linear in the
    number of rows and references: tiles are recomputed in the backward pass.

    Args:
        projections: L2-normalised rows.
        labels: the class of each image, any integers.
        references: L2-normalised rows of earlier batches.
        reference_labels: the class of each.
        temperature: above 0.
        ranks: processes that share the work, all with the same input; the loss is then one share, and values
            and gradients of all shares add up to those of the whole.

    Raises:
        ValueError: if a shape or dtype is wrong or the temperature is not above 0.

    Source:
        Wang et al. 2020, XBM, arXiv:1912.06798. There, a loss of the memory is added to that of the batch;
        here both are in one denominator.
    """
    check_inputs(projections, labels, temperature)
    if labels.ndim != 1 or references.shape != (len(reference_labels), projections.shape[2]):
        raise ValueError(
            f"labels must be integers [batch] and references [n, {projections.shape[2]}] with n labels, got "
            f"{list(labels.shape)}, {list(references.shape)} and {list(reference_labels.shape)}"
        )
    with torch.autocast(projections.device.type, enabled=False):
        rows = at_least_float32(projections).flatten(0, 1)
        known = references.detach().to(rows.dtype)
        classes = torch.cat([labels.repeat_interleave(projections.shape[1]), reference_labels])
        num_positives = class_sizes(classes)[: len(rows)] - 1
        height = max(1, min(MEMORY_TILE // max(len(classes), 1), -(-len(rows) // ranks.count)))
        total = sum_over_anchors(_tile, rows, height, ranks, known, classes, num_positives, temperature)
        return total / (num_positives > 0).sum().clamp(min=1)


def _tile(
    anchors: slice, rows: Tensor, known: Tensor, classes: Tensor, num_positives: Tensor, temperature: float
) -> Float[Tensor, ""]:
    """Sum of the losses of one tile of anchors."""
    similarity = torch.cat([rows[anchors] @ rows.T, rows[anchors] @ known.T], dim=1) / temperature
    indices = torch.arange(len(classes), device=rows.device)
    own = indices[: len(rows)][anchors]
    is_self = own[:, None] == indices
    # Not -inf: logsumexp over -inf alone, for a row without others, has a NaN gradient.
    log_normaliser = similarity.masked_fill(is_self, torch.finfo(rows.dtype).min).logsumexp(dim=1)
    is_positive = (classes[own, None] == classes) & ~is_self
    count = num_positives[anchors]
    attraction = torch.where(is_positive, similarity, 0.0).sum(dim=1) / count.clamp(min=1)
    return torch.where(count > 0, log_normaliser - attraction, 0.0).sum()
