"""Supervised contrastive loss: exact, in memory linear in the batch."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from supcon_pipeline.core.losses.inputs import anchor_classes, at_least_float32, check_inputs, class_sizes

# Rows and columns of a tile: a CPU wants its two buffers small, a GPU fewer and larger kernels.
# Of 8,192 rows: 0.57 s of processor time at 768, 0.64 at 1024, 0.90 at 2048. Beside busy programs, where each
# operation waits for its slowest thread, fewer operations win: 2.3 s at 1024, 2.0 at 2048.
CPU_TILE = 1024
GPU_TILE = 4096
# Of 2: leaves room for sums over 2^20 rows and for their inverses in float32. Reached at temperature 0.018.
MAX_PLAIN_EXPONENT = 80


def supcon_loss(
    projections: Float[Tensor, "batch views dim"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"] | None,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss, averaged over the anchors that have a positive.

    Every view of every image is an anchor; its positives are all other rows of its class. With class
    probabilities the loss is the cross-entropy between the distribution of label similarity over the other
    rows (p_i . p_j, normalised) and the softmax of their similarities: of one-hot rows it is the same loss.
    A batch without any positive gives 0 with zero gradient. Exact, in memory linear in the number of rows
    and time quadratic in it; similarities are float32 (or float64) whatever the precision of the input.
    Only the first derivative exists.

    Args:
        projections: L2-normalised rows; other lengths are computed as they are.
        labels: the class of each image, any integers; or its class probabilities, at least 0; or None where
            every image is a class of its own (SimCLR).
        temperature: above 0.

    Raises:
        ValueError: where a shape or dtype is off or the temperature is not above 0.

    Source:
        Khosla et al. 2020, arXiv:2004.11362, Eq. 2 (L_out), without the factor temperature / base
        temperature of the reference code, and as a mean instead of a sum over the anchors. As a
        cross-entropy: StableRep, arXiv:2306.00984, Eq. 1 to 3; with soft labels: GenSCL, arXiv:2206.00384.
        An anchor is left out where the label weight of its positives is below 1.5e-8 of that of itself.
    """
    check_inputs(projections, labels, temperature)
    with torch.autocast(projections.device.type, enabled=False):
        projections = at_least_float32(projections)
        attraction, has_positive = _attraction(projections, labels)
        num_views = projections.shape[1]
        weights = has_positive.to(projections.dtype) / (num_views * has_positive.sum()).clamp(min=1)
        row_weights = weights.repeat_interleave(num_views)
        repulsion: Tensor = _LogNormaliser.apply(projections.flatten(0, 1), row_weights, temperature)
        return repulsion - (attraction / temperature).to(repulsion.dtype)


def _attraction(
    projections: Float[Tensor, "batch views dim"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"] | None,
) -> tuple[Float[Tensor, ""], Tensor]:
    """The mean over anchors of the mean inner product with their positives; which images have a positive.

    sum_ij w_ij x_i.x_j / W_i, with w_ij = p_i.p_j, is a product of class sums less the terms of i = j.
    """
    # Class sums minus a row cancel: in float32 an anchor with few or light positives would lose its digits.
    # MPS has no float64.
    exact = projections if projections.device.type == "mps" else projections.double()
    num_views, images = exact.shape[1], exact.sum(dim=1)
    if labels is not None and labels.is_floating_point():
        shares = labels.to(exact.dtype)
        own_weight = shares.square().sum(dim=1)
        weight = (shares * (num_views * shares.sum(dim=0) - shares)).sum(dim=1)
    else:
        shares = anchor_classes(labels, projections)
        own_weight = torch.ones_like(images[:, 0])
        weight = num_views * class_sizes(shares) - own_weight
    has_positive = weight > own_weight * math.sqrt(torch.finfo(exact.dtype).eps)
    # Divided by 1 where there is no positive: where() alone would leave a NaN in the gradient.
    scale = has_positive / torch.where(has_positive, weight, 1.0)
    between = (_class_sums(images * scale[:, None], shares) * _class_sums(images, shares)).sum()
    within = (exact.square().sum(dim=(1, 2)) * own_weight * scale).sum()
    return (between - within) / (has_positive.sum() * num_views).clamp(min=1), has_positive


def _class_sums(
    values: Float[Tensor, "batch dim"], shares: Int[Tensor, " batch"] | Float[Tensor, "batch classes"]
) -> Float[Tensor, "classes dim"]:
    if shares.is_floating_point():
        return shares.T @ values
    return torch.zeros_like(values).index_add(0, shares, values)


class _LogNormaliser(torch.autograd.Function):
    """Weighted sum over rows i of log sum_{j != i} exp(x_i . x_j / temperature), for weights at least 0.

    Similarities are symmetric, so both passes see each pair of rows once, in square tiles on and above the
    diagonal: forward streams the normalisers, backward takes the tiles again. Together these are the matrix
    products of two full similarity matrices, where autograd on the plain formula needs three. Exponents have
    base 2 (`exp2` takes under half the time of `exp`) and are taken below the largest of their row, so
    that no temperature and no length of the rows overflows or loses a row.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, temperature: float) -> Tensor:
        scale = math.log2(math.e) / temperature
        is_bounded = _is_bounded(rows, scale)
        log2_normalisers = _log2_normalisers(rows, scale, is_bounded)
        # log2(weight * softmax) = similarity + offset; an anchor of weight 0 has no part in it.
        offsets = torch.where(weights > 0, weights.log2() - log2_normalisers, -torch.inf)
        ctx.save_for_backward(rows, offsets)
        ctx.temperature, ctx.is_bounded = temperature, is_bounded
        terms = torch.where(weights > 0, weights * log2_normalisers, 0.0)
        return terms.sum() * math.log(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        rows, offsets = ctx.saved_tensors
        # The caller may be inside autocast, which would take the products in half precision.
        with torch.autocast(rows.device.type, enabled=False):
            gradient = _gradient(rows, offsets, math.log2(math.e) / ctx.temperature, ctx.is_bounded)
        return gradient.mul_(grad_output / ctx.temperature), None, None


def _is_bounded(rows: Float[Tensor, "n dim"], scale: float) -> bool:
    """Whether 2^similarity, unshifted, stays in range; a GPU is not asked: the answer takes a sync."""
    return rows.device.type == "cpu" and bool((rows.square().sum(dim=1) * scale < MAX_PLAIN_EXPONENT).all())


def _log2_normalisers(rows: Float[Tensor, "n dim"], scale: float, is_bounded: bool) -> Float[Tensor, " n"]:
    # Finite, so that a row without any other row gives log2(0) and not the difference of two infinities.
    maxima = rows.new_full((len(rows),), 0.0 if is_bounded else torch.finfo(rows.dtype).min)
    sums = rows.new_zeros(len(rows))
    for above, left, tile, spare in _similarity_tiles(rows, scale):
        sides = [(above, 1)] if above == left else [(above, 1), (left, 0)]
        if is_bounded:
            tile.exp2_()
        for side, dim in sides:
            if is_bounded:
                sums[side] += tile.sum(dim=dim)
            else:
                _stream(maxima[side], sums[side], tile, spare, dim)
    return maxima + sums.log2()


def _stream(maxima: Tensor, sums: Tensor, tile: Tensor, spare: Tensor, dim: int) -> None:
    """Add the sum of 2^tile along `dim` to what `sums` holds relative to `maxima`, in place."""
    raised = torch.maximum(maxima, tile.amax(dim=dim))
    torch.sub(tile, raised.unsqueeze(dim), out=spare)
    sums.mul_(torch.exp2(maxima - raised)).add_(spare.exp2_().sum(dim=dim))
    maxima.copy_(raised)


def _gradient(
    rows: Float[Tensor, "n dim"], offsets: Float[Tensor, " n"], scale: float, is_bounded: bool
) -> Float[Tensor, "n dim"]:
    gradient, factors = torch.zeros_like(rows), offsets.exp2()
    for above, left, tile, spare in _similarity_tiles(rows, scale):
        # The pair attracts by the softmax of one as the anchor plus that of the other.
        if is_bounded:
            pull = tile.exp2_().mul_(torch.add(factors[above, None], factors[left], out=spare))
        else:
            torch.add(tile, offsets[above, None], out=spare)
            pull = tile.add_(offsets[left]).exp2_().add_(spare.exp2_())
        gradient[above].addmm_(pull, rows[left])
        if above != left:
            gradient[left].addmm_(pull.T, rows[above])
    return gradient


def _similarity_tiles(
    rows: Float[Tensor, "n dim"], scale: float
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows, columns, scaled similarities (-inf of a row with itself), spare buffer; both are used again."""
    size = min(CPU_TILE if rows.device.type == "cpu" else GPU_TILE, max(len(rows), 1))
    buffers = rows.new_empty(2, size * size)
    starts = range(0, len(rows), size)
    for start in starts:
        above = slice(start, min(start + size, len(rows)))
        scaled = rows[above] * scale
        for other in starts[start // size :]:
            left = slice(other, min(other + size, len(rows)))
            shape = (above.stop - above.start, left.stop - left.start)
            tile, spare = buffers[:, : shape[0] * shape[1]].unflatten(1, shape)
            torch.mm(scaled, rows[left].T, out=tile)
            if above == left:
                tile.fill_diagonal_(-torch.inf)
            yield above, left, tile, spare
