"""Rows of vectors: normalisation and checks."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.messages import InputError


def unit_rows(rows: Float[np.ndarray, "n dim"], dtype: Any = np.float32) -> Float[np.ndarray, "n dim"]:
    """Rows scaled to length 1, in C order; a row of zeros stays zero."""
    rows = np.asarray(rows, dtype=dtype)
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(scaled)


def require_labels(name: str, rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> None:
    """Reject rows that are not finite or do not match the number of labels.

    Raises:
        ValueError: if the counts differ.
        InputError: if a row is not finite.
    """
    if len(rows) != len(labels):
        raise ValueError(f"labels of the {name} must have the same length ({len(rows)}), got {len(labels)}")
    if not np.isfinite(rows).all():
        raise InputError(
            f"{name} must be finite, got NaN or infinity; the encoder diverged, lower its optimizer.lr"
        )
