"""Rows of vectors: normalisation and checks."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from supcon_pipeline.core.messages import DivergenceError

# Numbers of unit rows that differ by less are equal: float32, summed in another order, differs by 1e-6.
SAME = 1e-5


def unit_rows(rows: Float[np.ndarray, "n dim"], dtype: Any = np.float32) -> Float[np.ndarray, "n dim"]:
    """Rows scaled to length 1, in C order; a row of zeros stays zero."""
    rows = np.asarray(rows, dtype=dtype)
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(scaled)


def are_same(rows: Float[np.ndarray, "n dim"]) -> bool:
    """Whether all rows have the same direction, or all are zero, up to rounding."""
    return bool(np.ptp(unit_rows(rows, np.float64), axis=0).max() < SAME)


def require_finite(name: str, rows: Shaped[np.ndarray, "n ..."]) -> None:
    """Reject rows that hold NaN or infinity, or are too long for their length to be a number.

    Raises:
        DivergenceError: with the first such row.
    """
    rows = np.asarray(rows)
    # A squared length is not finite where a number is not, and takes less memory than a flag per number.
    lengths = np.einsum("ij,ij->i", rows, rows) if rows.ndim == 2 else rows
    is_wrong = ~np.isfinite(lengths)
    if is_wrong.any():
        raise DivergenceError(
            f"{name} must be finite, got NaN or infinity in row {int(is_wrong.argmax())}; "
            "the encoder diverged, lower its optimizer.lr"
        )


def require_labels(name: str, rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> None:
    """Reject rows that are not finite or do not match the number of labels.

    Raises:
        ValueError: if the counts differ.
        InputError: if a row is not finite.
    """
    if len(rows) != len(labels):
        raise ValueError(f"labels of the {name} must have the same length ({len(rows)}), got {len(labels)}")
    require_finite(name, rows)


def require_rows(name: str, rows: Int[np.ndarray, " n"], count: int) -> None:
    """Reject indices of rows if there are none, or if they are not below the given count.

    Raises:
        ValueError: with the lowest and the highest.
    """
    if not len(rows):
        raise ValueError(f"{name} must hold at least one row, got none")
    if not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(f"{name} must be from 0 to {count - 1}, got {rows.min()} to {rows.max()}")
