"""SINCERE: supervised contrastive loss without other positives in the denominator."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from supcon_pipeline.core.losses.inputs import anchor_classes, at_least_float32, check_inputs, class_sizes
from supcon_pipeline.core.losses.tiles import sum_over_anchors
from supcon_pipeline.core.ranks import ALONE, Ranks

# A tile has all columns and about 2^20 elements, but enough rows to be worth a gradient accumulation.
SINCERE_TILE = 2**20
MIN_SINCERE_ROWS = 64


def sincere_loss(
    projections: Float[Tensor, "batch views dim"],
    labels: Int[Tensor, " batch"] | None,
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss in which no positive repels another, over the anchors that have a positive.

    The denominator of an anchor and one positive contains that positive and all negatives, but no other
    positive. Exact, with memory linear in the number of rows: tiles are recomputed in the backward pass.

    Args:
        projections: L2-normalised rows.
        labels: the class of each image, any integers; None if every image is its own class.
        temperature: above 0.
        ranks: processes that share the work, all with the same input; the loss is then one share, and values
            and gradients of all shares add up to those of the whole.

    Raises:
        ValueError: if a shape or dtype is wrong or the temperature is not above 0.

    Source:
        Feeney and Hughes 2023, SINCERE, arXiv:2309.14277: the mean over the positives of an anchor, then over
        the anchors. The reference code is NaN for an anchor without a positive; here it is left out.
    """
    check_inputs(projections, labels, temperature)
    if labels is not None and labels.ndim != 1:
        raise ValueError(
            f"labels must be integers [batch], got {labels.dtype} {list(labels.shape)}; "
            "use supcon_loss for class probabilities"
        )
    with torch.autocast(projections.device.type, enabled=False):
        rows = at_least_float32(projections).flatten(0, 1)
        classes = anchor_classes(labels, projections).repeat_interleave(projections.shape[1])
        num_positives = class_sizes(classes) - 1
        height = max(MIN_SINCERE_ROWS, SINCERE_TILE // max(len(rows), 1))
        if ranks.count > 1:
            height = min(height, -(-len(rows) // ranks.count))
        total = sum_over_anchors(_sincere_tile, rows, height, ranks, classes, num_positives, temperature)
        return total / (num_positives > 0).sum().clamp(min=1)


def _sincere_tile(
    anchors: slice, rows: Tensor, classes: Tensor, num_positives: Tensor, temperature: float
) -> Float[Tensor, ""]:
    """Sum of the losses of one tile of anchors."""
    similarity = rows[anchors] @ rows.T / temperature
    is_same = classes[anchors, None] == classes
    # Not -inf: logsumexp over -inf alone has a NaN gradient. An anchor without negatives has loss 0.
    negatives = similarity.masked_fill(is_same, torch.finfo(rows.dtype).min).logsumexp(dim=1, keepdim=True)
    # log(e^s / (e^s + sum of negatives))
    log_share = functional.logsigmoid(similarity - negatives)
    indices = torch.arange(len(rows), device=rows.device)
    is_positive = is_same & (indices[anchors, None] != indices)
    sums = torch.where(is_positive, log_share, 0.0).sum(dim=1)
    return -(sums / num_positives[anchors].clamp(min=1)).sum()
