"""The confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from supcon_pipeline.core.figures.names import drawn_name, show_as_written, text_width
from supcon_pipeline.core.metrics.classification import confused_pairs

# With more classes, counts do not fit their cells, and the most confused pairs are listed instead.
MAX_COUNTED = 20
NUM_LISTED = 25
LIST_POINTS = 9
MAX_LETTERS = 24


def draw_confusion(matrix: Int[np.ndarray, "c c"], class_names: Sequence[str]) -> Any:
    """Counts of label (row) against prediction (column), coloured by the share of the row.

    With more than 20 classes, the most confused pairs are listed beside it instead of counts.
    """
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [drawn_name(name, MAX_LETTERS) for name in class_names]
    size = float(np.clip(2.5 + 0.5 * len(matrix), 4.5, 11.0))
    has_list = len(matrix) > MAX_COUNTED
    lines = _list_pairs(matrix, names) if has_list else []
    widths = [size + 1.2, *([text_width(lines, LIST_POINTS) + 0.2] if has_list else [])]
    figure = Figure(figsize=(sum(widths), size), layout="constrained")
    whole, *beside = figure.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0]
    axis = whole.subplots()
    # A square root makes confusions of a few per cent visible beside the diagonal.
    image = axis.imshow(shares, cmap="Blues", norm="linear" if not has_list else _root_norm())
    axis.set(xlabel="predicted", ylabel="label", title="Confusion of the classifier on test images")
    _label_axes(axis, names, size)
    if not has_list:
        _write_counts(axis, matrix, shares)
    image.set_clim(0, 1)
    whole.colorbar(image, ax=axis, label="share of the label's images", shrink=0.8)
    for part in beside:
        part.text(0, 0.97, "\n".join(lines), va="top", fontsize=LIST_POINTS)
    return show_as_written(figure)


def _root_norm() -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=1)


def _label_axes(axis: Any, class_names: Sequence[str], inches: float) -> None:
    """Name the rows and columns, in smaller type the more there are; with over 120, every n-th."""
    num_classes = len(class_names)
    step = -(-num_classes // 120)
    ticks = range(0, num_classes, step)
    size = float(np.clip(620 / num_classes, 5, 10))
    names = [class_names[tick] for tick in ticks]
    # Inches of the longest name at ten points.
    longest = 0.083 * max(map(len, class_names))
    is_long = num_classes > 12 or longest * num_classes > 0.9 * (inches - 0.7 - longest)
    axis.set_xticks(ticks, names, rotation=90 if is_long else 0, fontsize=size)
    axis.set_yticks(ticks, names, fontsize=size)


def _write_counts(axis: Any, matrix: Any, shares: Any) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=9)


def _list_pairs(matrix: Any, class_names: Sequence[str]) -> list[str]:
    """The most frequent confusions, one per line."""
    pairs = confused_pairs(matrix)
    lines = [
        f"{count} of {matrix[label].sum()}   {class_names[label]} → {class_names[predicted]}"
        for label, predicted, count in zip(
            *(pairs[name][:NUM_LISTED] for name in ("label", "predicted", "count")), strict=True
        )
    ]
    return ["most confused, label → predicted", "", *lines]
