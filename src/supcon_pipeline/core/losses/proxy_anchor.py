"""Proxy-anchor: images are compared with a learned row of each class instead of with one another."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from supcon_pipeline.core.losses.inputs import at_least_float32
from supcon_pipeline.core.ranks import ALONE, Ranks

# That of the source.
MARGIN = 0.1


def proxy_anchor_loss(
    similarities: Float[Tensor, "rows classes"],
    labels: Int[Tensor, " rows"],
    temperature: float = 1 / 32,
    margin: float = MARGIN,
    ranks: Ranks = ALONE,
) -> Float[Tensor, ""]:
    """The mean over the proxies of a batch of what its own rows lack, and over all of what the others exceed.

        mean over classes c in the batch of log(1 + sum of exp((margin - s(i, c)) / temperature), i of c)
        + mean over all classes c of log(1 + sum of exp((margin + s(i, c)) / temperature), i not of c)

    Args:
        similarities: cosine, of each row to the proxy of each class.
        labels: the class of each row, from 0.
        temperature: above 0; its inverse is alpha in the source.
        margin: by which a row should be nearer to its proxy, and farther from others, than 0.
        ranks: processes that share the work, all with the same input; the loss is then one share, and values
            and gradients of all shares add up to those of the whole.

    Raises:
        ValueError: if a shape or dtype is wrong or the temperature is not above 0.

    Source:
        Kim et al. 2020, arXiv:2003.13911, equation 4.
    """
    is_hard = labels.ndim == 1 and not labels.is_floating_point()
    if similarities.ndim != 2 or not is_hard or len(labels) != len(similarities):
        raise ValueError(
            "labels must be integers [rows] for similarities [rows, classes], got "
            f"{labels.dtype} {list(labels.shape)} and {list(similarities.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    with torch.autocast(similarities.device.type, enabled=False):
        similarities = at_least_float32(similarities)
        is_own = labels[:, None] == torch.arange(similarities.shape[1], device=labels.device)
        attraction = _log_excess((margin - similarities) / temperature, is_own)
        repulsion = _log_excess((margin + similarities) / temperature, ~is_own)
        num_present = is_own.any(dim=0).sum().clamp(min=1)
        return (attraction.sum() / num_present + repulsion.mean()) / ranks.count


def _log_excess(
    exponents: Float[Tensor, "rows classes"], is_chosen: Bool[Tensor, "rows classes"]
) -> Float[Tensor, " classes"]:
    """log(1 + the sum of the exponentials of those chosen) of each column."""
    # Not -inf: logsumexp over -inf alone, for a class without rows, has a NaN gradient.
    lowest = torch.finfo(exponents.dtype).min
    return functional.softplus(exponents.masked_fill(~is_chosen, lowest).logsumexp(dim=0))
