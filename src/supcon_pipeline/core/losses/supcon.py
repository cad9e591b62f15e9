"""Supervised contrastive loss: exact, with memory linear in the batch."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from supcon_pipeline.core.losses.inputs import anchor_classes, at_least_float32, check_inputs, class_sizes
from supcon_pipeline.core.ranks import ALONE, Ranks

# Rows and columns of a tile: a CPU prefers small buffers, a GPU fewer and larger kernels.
# CPU time for 8,192 rows: 0.57 s at 768, 0.64 at 1024, 0.90 at 2048. On a busy machine, where each operation
# waits for its slowest thread, fewer operations win: 2.3 s at 1024, 2.0 at 2048.
CPU_TILE = 1024
GPU_TILE = 4096
# Exponent of 2 that leaves room in float32 for sums over 2^20 rows and their inverses. Reached at temperature
# 0.018.
MAX_PLAIN_EXPONENT = 80


def supcon_loss(
    projections: Float[Tensor, "batch views dim"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"] | None,
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
    is_class_averaged: bool = False,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss, averaged over the anchors that have a positive.

    Every view of every image is an anchor; its positives are all other rows of its class. With class
    probabilities the loss is the cross-entropy between the distribution of label similarity over the other
    rows (p_i . p_j, normalised) and the softmax of their similarities: the same loss for one-hot rows.
    A batch without any positive gives 0 with zero gradient. Exact, with memory linear and time quadratic in
    the number of rows. Similarities are float32 (or float64), whatever the precision of the input. Only first
    derivatives are supported.

    Args:
        projections: L2-normalised rows; rows of other lengths are not rescaled.
        labels: the class of each image, any integers; or its class probabilities, at least 0; or None if
            every image is its own class (SimCLR).
        temperature: above 0.
        ranks: processes that share the work, all with the same input; the loss is then one share, and values
            and gradients of all shares add up to those of the whole.
        is_class_averaged: whether each class has the same weight in the normaliser, however many rows of it
            are in the batch: see `class_weights`. No gradient reaches class probabilities through them.

    Raises:
        ValueError: if a shape or dtype is wrong or the temperature is not above 0.

    Source:
        Khosla et al. 2020, arXiv:2004.11362, Eq. 2 (L_out), without the factor temperature / base
        temperature of the reference code, and as a mean instead of a sum over the anchors. As a
        cross-entropy: StableRep, arXiv:2306.00984, Eq. 1 to 3; with soft labels: GenSCL, arXiv:2206.00384.
        An anchor is left out if the label weight of its positives is below 1.5e-8 times its own.
        Class-averaged: Zhu et al. 2022, BCL, arXiv:2207.09052, without its class centres. In its code, an
        anchor does not count in the size of its own class; here it does, and sizes are relative to their
        mean, which adds a constant: a batch of classes of equal size then has exactly the plain loss.
    """
    check_inputs(projections, labels, temperature)
    with torch.autocast(projections.device.type, enabled=False):
        projections = at_least_float32(projections)
        attraction, has_positive = _attraction(projections, labels)
        num_views = projections.shape[1]
        is_anchor = has_positive.repeat_interleave(num_views)
        weights = None
        if is_class_averaged:
            weights = class_weights(labels, projections).repeat_interleave(num_views)
        rows = projections.flatten(0, 1)
        repulsion: Tensor = _LogNormaliser.apply(rows, is_anchor, weights, temperature, ranks)
        return repulsion - (attraction / temperature / ranks.count).to(repulsion.dtype)


def class_weights(
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"] | None,
    projections: Float[Tensor, "batch views dim"],
) -> Float[Tensor, " batch"]:
    """The mean number of images of a class, divided by that of an image's own; all 1 if classes are equal.

    An image of several classes has the mean of their weights. Classes without images do not count.
    """
    if labels is not None and labels.is_floating_point():
        shares = labels.detach().to(projections.dtype)
        sizes = shares.sum(dim=0)
        mean = sizes.sum() / (sizes > 0).sum()
        return shares @ torch.where(sizes > 0, mean / sizes, 0.0)
    sizes = class_sizes(anchor_classes(labels, projections)).to(projections.dtype)
    # Of each class, the inverse sizes of its images add up to 1.
    num_classes = sizes.reciprocal().sum().round()
    return len(sizes) / (num_classes * sizes)


def _attraction(
    projections: Float[Tensor, "batch views dim"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"] | None,
) -> tuple[Float[Tensor, ""], Tensor]:
    """Mean over anchors of the mean inner product with their positives, and which images have a positive.

    sum_ij w_ij x_i.x_j / W_i, with w_ij = p_i.p_j, is a product of class sums minus the terms with i = j.
    """
    # Subtracting a row from its class sum cancels: float32 would be too coarse for few or light positives.
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
    # Divide by 1 if there is no positive: where() alone would leave a NaN in the gradient.
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
    """Mean over anchors i of log sum_{j != i} w_j exp(x_i . x_j / temperature); 0 without any anchor.

    The weights w are all 1 where there are none.

    Similarities are symmetric, so both passes visit each pair of rows once, in square tiles on and above the
    diagonal: forward streams the normalisers, backward recomputes the tiles. Together they cost the matrix
    products of two full similarity matrices; autograd on the plain formula needs three. Exponentials are in
    base 2 (`exp2` takes under half the time of `exp`) and relative to the largest of their row, so that no
    temperature or row length overflows or loses a row.

    Processes that share the work take turns at the tiles. The value is divided by their number; the gradient
    is that of the process's own tiles.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, is_anchor: Tensor, weights: Tensor | None, temperature: float, ranks: Ranks
    ) -> Tensor:
        scale = math.log2(math.e) / temperature
        is_bounded = _is_bounded(rows, scale)
        maxima, sums = _log2_sums(rows, weights, scale, is_bounded, ranks)
        log2_normalisers = maxima + sums.log2()
        # softmax = 2^similarity * inverse, or 2^(similarity + offset); that of a row that is no anchor is 0.
        # Not a round trip through the logarithm where it can be left out, nor a common factor in the offset:
        # their rounding, times 1 / temperature, is all that is left where a softmax is saturated.
        softmax_terms = (
            torch.where(is_anchor, 1 / sums, 0.0)
            if is_bounded
            else torch.where(is_anchor, -log2_normalisers, -torch.inf)
        )
        num_anchors = is_anchor.sum().clamp(min=1)
        ctx.save_for_backward(rows, softmax_terms, weights, num_anchors)
        ctx.temperature, ctx.is_bounded, ctx.ranks = temperature, is_bounded, ranks
        mean = torch.where(is_anchor, log2_normalisers, 0.0).sum() * math.log(2) / num_anchors
        return mean / ranks.count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        rows, softmax_terms, weights, num_anchors = ctx.saved_tensors
        # The caller may be inside autocast, which would compute the products in half precision.
        with torch.autocast(rows.device.type, enabled=False):
            scale = math.log2(math.e) / ctx.temperature
            gradient = _gradient(rows, softmax_terms, weights, scale, ctx.is_bounded, ctx.ranks)
        return gradient.mul_(grad_output / ctx.temperature / num_anchors), None, None, None, None


def _is_bounded(rows: Float[Tensor, "n dim"], scale: float) -> bool:
    """Whether 2^similarity, unshifted, stays in range; always False on a GPU, where a check needs a sync."""
    return rows.device.type == "cpu" and bool((rows.square().sum(dim=1) * scale < MAX_PLAIN_EXPONENT).all())


def _log2_sums(
    rows: Float[Tensor, "n dim"],
    weights: Float[Tensor, " n"] | None,
    scale: float,
    is_bounded: bool,
    ranks: Ranks,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Maxima m and sums s of each row; its normaliser is 2^m s. Where they are bounded, all m are 0."""
    # Not -inf, so that a single row gives log2(0) instead of infinity minus infinity.
    maxima = rows.new_full((len(rows),), 0.0 if is_bounded else torch.finfo(rows.dtype).min)
    sums = rows.new_zeros(len(rows))
    for row_range, column_range, tile, spare in _similarity_tiles(rows, scale, ranks):
        sides = [(row_range, column_range, 1), (column_range, row_range, 0)]
        if is_bounded:
            tile.exp2_()
        for side, others, dim in sides[:1] if row_range == column_range else sides:
            of_others = None if weights is None else weights[others]
            if is_bounded:
                sums[side] += _sum(tile, of_others, dim)
            else:
                _stream(maxima[side], sums[side], tile, spare, of_others, dim)
    highest = maxima.clone()
    ranks.max_(highest)
    if not is_bounded and ranks.count > 1:
        sums.mul_(torch.exp2(maxima - highest))
    ranks.sum_(sums)
    return highest, sums


def _sum(tile: Tensor, weights: Tensor | None, dim: int) -> Tensor:
    """The weighted sum of a tile along a dimension."""
    if weights is None:
        return tile.sum(dim=dim)
    return tile @ weights if dim else weights @ tile


def _stream(
    maxima: Tensor, sums: Tensor, tile: Tensor, spare: Tensor, weights: Tensor | None, dim: int
) -> None:
    """Add the weighted sum of 2^tile along `dim` to `sums`, which is relative to `maxima`, in place."""
    raised = torch.maximum(maxima, tile.amax(dim=dim))
    torch.sub(tile, raised.unsqueeze(dim), out=spare)
    sums.mul_(torch.exp2(maxima - raised)).add_(_sum(spare.exp2_(), weights, dim))
    maxima.copy_(raised)


def _gradient(
    rows: Float[Tensor, "n dim"],
    terms: Float[Tensor, " n"],
    weights: Float[Tensor, " n"] | None,
    scale: float,
    is_bounded: bool,
    ranks: Ranks,
) -> Float[Tensor, "n dim"]:
    gradient = torch.zeros_like(rows)
    for row_range, column_range, tile, spare in _similarity_tiles(rows, scale, ranks):
        # The weight of a pair is the softmax with one row as the anchor plus that with the other.
        one, other = terms[row_range, None], terms[column_range]
        if not is_bounded:
            torch.add(tile, one, out=spare)
            pull, spare = tile.add_(other).exp2_(), spare.exp2_()
            if weights is not None:
                pull.mul_(weights[row_range, None])
                spare.mul_(weights[column_range])
            pull.add_(spare)
        elif weights is None:
            pull = tile.exp2_().mul_(torch.add(one, other, out=spare))
        else:
            torch.mul(one, weights[column_range], out=spare)
            pull = tile.exp2_().mul_(spare.addcmul_(weights[row_range, None], other))
        gradient[row_range].addmm_(pull, rows[column_range])
        if row_range != column_range:
            gradient[column_range].addmm_(pull.T, rows[row_range])
    return gradient


def _similarity_tiles(
    rows: Float[Tensor, "n dim"], scale: float, ranks: Ranks
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows, columns, scaled similarities (-inf on the diagonal), spare buffer; both buffers are reused.

    Of processes that share them, each gets equally many.
    """
    # With two rows of tiles for each of several processes, the number of tiles divides by theirs.
    most = len(rows) if ranks.count == 1 else -(-len(rows) // (2 * ranks.count))
    size = min(CPU_TILE if rows.device.type == "cpu" else GPU_TILE, max(most, 1))
    buffers = rows.new_empty(2, size * size)
    starts, root = range(0, len(rows), size), math.sqrt(scale)
    turns = itertools.cycle(range(ranks.count))
    for start in starts:
        row_range = slice(start, min(start + size, len(rows)))
        # The root on both sides: a pair must have the same bits from either row, whose normaliser it enters.
        scaled = rows[row_range] * root
        for other in starts[start // size :]:
            if next(turns) != ranks.rank:
                continue
            column_range = slice(other, min(other + size, len(rows)))
            shape = (row_range.stop - row_range.start, column_range.stop - column_range.start)
            tile, spare = buffers[:, : shape[0] * shape[1]].unflatten(1, shape)
            torch.mm(scaled, (rows[column_range] * root).T, out=tile)
            if row_range == column_range:
                tile.fill_diagonal_(-torch.inf)
            yield row_range, column_range, tile, spare
