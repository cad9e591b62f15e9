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
# With more classes, a cell would be smaller than a pixel: the most confused ones are drawn, so many of them.
MAX_DRAWN, NUM_DRAWN = 120, 40


def draw_confusion(matrix: Any, class_names: Sequence[str]) -> Any:
    """Counts of label (row) against prediction (column), coloured by the share of the row.

    With more than 20 classes, the most confused pairs are listed beside it instead of counts; with more than
    120, only the classes of the most confused pairs are drawn.

    Args:
        matrix: square, an array of numpy or of scipy.sparse.
        class_names: one name per class.
    """
    from matplotlib.figure import Figure
    from scipy.sparse import csr_array

    sparse = csr_array(matrix)
    names = [drawn_name(name, MAX_LETTERS) for name in class_names]
    drawn = _drawn_classes(sparse, len(names))
    matrix = sparse[drawn][:, drawn].toarray()
    # Of all images of the label, whether or not the class that they were taken for is drawn.
    shares = matrix / np.maximum(np.asarray(sparse.sum(axis=1))[drawn, None], 1)
    size = float(np.clip(2.5 + 0.5 * len(matrix), 4.5, 11.0))
    has_list = len(matrix) > MAX_COUNTED
    lines = _list_pairs(sparse, names) if has_list else []
    widths = [size + 1.2, *([text_width(lines, LIST_POINTS) + 0.2] if has_list else [])]
    figure = Figure(figsize=(sum(widths), size), layout="constrained")
    whole, *beside = figure.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0]
    axis = whole.subplots()
    # A square root makes confusions of a few per cent visible beside the diagonal.
    image = axis.imshow(shares, cmap="Blues", norm="linear" if not has_list else _root_norm())
    part = "" if len(drawn) == len(names) else f", {len(drawn)} of {len(names):,} classes"
    axis.set(xlabel="predicted", ylabel="label", title=f"Confusion of the classifier on test images{part}")
    _label_axes(axis, [names[index] for index in drawn], size)
    if not has_list:
        _write_counts(axis, matrix, shares)
    image.set_clim(0, 1)
    whole.colorbar(image, ax=axis, label="share of the label's images", shrink=0.8)
    for part in beside:
        part.text(0, 0.97, "\n".join(lines), va="top", fontsize=LIST_POINTS)
    return show_as_written(figure)


def _drawn_classes(matrix: Any, num_classes: int) -> Int[np.ndarray, " drawn"]:
    """All classes; of very many those of the most confused pairs, and, where these are few, the first."""
    if num_classes <= MAX_DRAWN:
        return np.arange(num_classes)
    pairs = confused_pairs(matrix)
    confused = np.stack([pairs["label"], pairs["predicted"]], axis=1).ravel().tolist()
    return np.sort(list(dict.fromkeys([*confused, *range(num_classes)]))[:NUM_DRAWN])


def _root_norm() -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=1)


def _label_axes(axis: Any, class_names: Sequence[str], inches: float) -> None:
    """Name the rows and columns, in smaller type the more there are."""
    num_classes = len(class_names)
    ticks = range(num_classes)
    size = float(np.clip(620 / num_classes, 5, 10))
    # Inches of the longest name at ten points.
    longest = 0.083 * max(map(len, class_names))
    is_long = num_classes > 12 or longest * num_classes > 0.9 * (inches - 0.7 - longest)
    axis.set_xticks(ticks, class_names, rotation=90 if is_long else 0, fontsize=size)
    axis.set_yticks(ticks, class_names, fontsize=size)


def _write_counts(axis: Any, matrix: Any, shares: Any) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=9)


def _list_pairs(matrix: Any, class_names: Sequence[str]) -> list[str]:
    """The most frequent confusions, one per line."""
    pairs, support = confused_pairs(matrix), np.asarray(matrix.sum(axis=1))
    lines = [
        f"{count} of {support[label]}   {class_names[label]} → {class_names[predicted]}"
        for label, predicted, count in zip(
            *(pairs[name][:NUM_LISTED] for name in ("label", "predicted", "count")), strict=True
        )
    ]
    return ["most confused, label → predicted", "", *lines]
