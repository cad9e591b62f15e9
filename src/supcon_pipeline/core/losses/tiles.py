"""Sums over the anchors of a batch, one tile of them at a time."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from supcon_pipeline.core.ranks import Ranks


def sum_over_anchors(
    tile: Callable[..., Tensor], rows: Tensor, height: int, ranks: Ranks, *arguments: Any
) -> Tensor:
    """The sum of `tile(anchors, rows, *arguments)` over tiles of anchors, recomputed in the backward pass.

    Args:
        tile: gives a scalar for a slice of the rows.
        rows: the anchors.
        height: rows of a tile.
        ranks: processes that take turns at the tiles; the sum is that of this process.
        arguments: what else a tile needs.
    """
    # Depends on the rows where a process has no tile.
    total = rows.sum() * 0
    for start in range(ranks.rank * height, len(rows), ranks.count * height):
        anchors = slice(start, start + height)
        total = total + checkpoint(
            tile, anchors, rows, *arguments, use_reentrant=False, preserve_rng_state=False
        )
    return total
