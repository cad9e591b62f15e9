"""Training curves and the curve of the learning-rate range test."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.figures.marks import BLUE, FEW_COLORS, GREEN, ORANGE, SKY, VERMILLION
from supcon_pipeline.core.metrics.direction import LOWER_IS_BETTER

# Up to this many epochs, each has a marker: a single one has no line.
MAX_MARKED = 20


def draw_curves(histories: Mapping[str, pd.DataFrame]) -> Any:
    """Loss and learning rate above, validation metrics below, one column per training.

    Args:
        histories: by title, with the columns `epoch`, `loss`, `lr`, `collapse_loss` and the metrics.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4 * len(histories), 8.4), layout="constrained")
    axes = figure.subplots(2, len(histories), squeeze=False)
    for (above, below), (title, history) in zip(axes.T, histories.items(), strict=True):
        above.set(title=title)
        _draw_loss(above, history)
        _draw_metrics(below, history)
    for axis in figure.axes:
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        for line in axis.lines:
            line.set_marker("." if np.size(line.get_xdata()) <= MAX_MARKED else "")
    return figure


def _draw_loss(axis: Any, history: pd.DataFrame) -> None:
    lines = axis.plot(history["epoch"], history["loss"], color=BLUE, label="training loss")
    if history["collapse_loss"].notna().any():
        label = "loss of a collapsed encoder"
        lines += axis.plot(history["epoch"], history["collapse_loss"], ":", color=VERMILLION, label=label)
    rate = axis.twinx()
    lines += rate.plot(history["epoch"], history["lr"], "--", color=ORANGE, label="learning rate")
    axis.set(ylabel="loss")
    rate.set(ylabel="learning rate (dashed)")
    _add_legend(axis, lines, -0.08, num_columns=3)


def _draw_metrics(axis: Any, history: pd.DataFrame) -> None:
    names = [str(name) for name in history if name not in ("epoch", "loss", "lr", "collapse_loss")]
    metrics = [name for name in names if not name.startswith("raw.")]
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in metrics))
    axis.set(xlabel="epoch", ylabel="validation: higher is better")
    lower = axis
    if LOWER_IS_BETTER & set(kinds):
        # Such metrics have no upper bound and would flatten the others.
        lower = axis.twinx()
        lower.set(ylabel="validation: lower is better (dashed)")
    lines: list[Any] = []
    for name in metrics:
        kind = name.rpartition(".")[2]
        is_lower = kind in LOWER_IS_BETTER
        style = "--" if is_lower else ":" if name.startswith("projection.") else "-"
        color = FEW_COLORS[kinds.index(kind) % len(FEW_COLORS)]
        # Epochs that were not validated are NaN.
        validated = history[["epoch", name]].dropna()
        lines += (lower if is_lower else axis).plot(
            validated["epoch"], validated[name], style, color=color, label=name
        )
    axis.grid(alpha=0.3)
    _add_legend(axis, lines, -0.14, num_columns=2)


def _add_legend(axis: Any, lines: list[Any], height: float, num_columns: int) -> None:
    """Add a legend below the axis, where it hides no curve."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, height)}
    axis.legend(handles=lines, fontsize=8, ncols=num_columns, **place)


def draw_lr_curve(curve: pd.DataFrame, suggestion: Mapping[str, float]) -> Any:
    """Loss against learning rate, with the suggested rate.

    The axis is scaled to the fall of the loss; where it diverges at the end, the curve leaves the picture.

    Args:
        curve: with the columns `lr`, `loss` and `smoothed_loss`.
        suggestion: with `suggested_lr` and `lowest_lr`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axis = figure.subplots()
    axis.plot(curve["lr"], curve["loss"], color=SKY, alpha=0.5, linewidth=1, label="loss of each step")
    axis.plot(curve["lr"], curve["smoothed_loss"], color=BLUE, label="smoothed")
    axis.axvline(
        suggestion["suggested_lr"], color=GREEN, label=f"suggested: {suggestion['suggested_lr']:.3g}"
    )
    axis.axvline(
        suggestion["lowest_lr"],
        color=VERMILLION,
        linestyle=":",
        label=f"lowest: {suggestion['lowest_lr']:.3g}",
    )
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Learning-rate range test")
    lowest = int(curve["smoothed_loss"].argmin())
    bottom, top = curve["smoothed_loss"].iloc[lowest], curve["smoothed_loss"].iloc[: lowest + 1].max()
    if top > bottom:
        axis.set_ylim(bottom - 0.2 * (top - bottom), top + 0.6 * (top - bottom))
    axis.legend()
    return figure
