"""Logits of many images and classes, a tile at a time."""

import numpy as np
from jaxtyping import Float

from supcon_pipeline.core.messages import DivergenceError

# Logits scored at once: 32 MB as float64, and a few times that for intermediate results.
TILE_SIZE = 2**22


def row_tiles(logits: Float[np.ndarray, "n classes"], tile_size: int) -> list[slice]:
    """Slices of consecutive rows that hold about `tile_size` numbers each."""
    step = max(1, tile_size // logits.shape[1])
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def require_finite_logits(logits: Float[np.ndarray, "n classes"]) -> None:
    """Reject logits of a training that diverged.

    Raises:
        DivergenceError: if one is NaN or infinite.
    """
    if not all(np.isfinite(logits[tile]).all() for tile in row_tiles(logits, TILE_SIZE)):
        raise DivergenceError(
            "logits must be finite, got NaN or infinity; the training diverged, lower its optimizer.lr"
        )


def log_softmax(
    logits: Float[np.ndarray, "n classes"], temperature: float = 1.0
) -> Float[np.ndarray, "n classes"]:
    """Log-probabilities, float64, of logits divided by the temperature."""
    from scipy.special import log_softmax as scipy_log_softmax

    scores: np.ndarray = scipy_log_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    return scores
