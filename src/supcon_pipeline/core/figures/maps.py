"""Static figures of t-SNE maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import SPLITS
from supcon_pipeline.core.figures.marks import NUM_MARKS, class_marks
from supcon_pipeline.core.figures.name_places import FONT_POINTS, place_names
from supcon_pipeline.core.figures.names import drawn_name, show_as_written

# More names would hide the points.
MAX_NAMES = 20
MAX_LETTERS = 24
# Width of a panel with its margins, and of the square map inside.
PANEL_INCHES, MAP_INCHES = 6.2, 6.0


def draw_tsne(points: pd.DataFrame, class_names: Sequence[str], num_images: Mapping[str, int]) -> Any:
    """A column per model, a row per seed and split; classes have marks, and the most compact also names.

    Args:
        points: one row per model, seed and image, with `model`, `seed`, `split`, `label`, `x` and `y`.
        class_names: one name per class.
        num_images: number of images in each split, of which points may show only a part.
    """
    from matplotlib.figure import Figure

    class_names = [drawn_name(name, MAX_LETTERS) for name in class_names]
    models, seeds = list(points["model"].unique()), list(points["seed"].unique())
    rows = [(seed, split) for seed in seeds for split in SPLITS if (points["split"] == split).any()]
    has_legend = len(class_names) <= NUM_MARKS
    num_legend_rows = -(-len(class_names) // _num_columns(class_names, len(models))) if has_legend else 0
    height = (PANEL_INCHES + 0.3) * len(rows) + 0.5 + 0.2 * num_legend_rows
    figure = Figure(figsize=(PANEL_INCHES * len(models), height), layout="constrained")
    axes = figure.subplots(len(rows), len(models), squeeze=False)
    for column, model in zip(axes.T, models, strict=True):
        for axis, (seed, split) in zip(column, rows, strict=True):
            of_map = points[(points["model"] == model) & (points["seed"] == seed)]
            _draw_panel(axis, of_map, split, class_names)
            title = f"{model}, {split} ({_share(of_map, split, num_images)})"
            axis.set(title=title if len(seeds) == 1 else f"{title}, seed {seed}")
    figure.suptitle("t-SNE of the embeddings: near points are similar; cluster sizes and gaps mean nothing")
    if has_legend:
        _add_legend(figure, class_names, _num_columns(class_names, len(models)))
    return show_as_written(figure)


def _share(of_map: pd.DataFrame, split: str, num_images: Mapping[str, int]) -> str:
    """How many images of the split are shown, in words."""
    shown, total = int((of_map["split"] == split).sum()), num_images[split]
    return f"{total:,} images" if shown == total else f"{shown:,} of {total:,} images"


def _draw_panel(axis: Any, of_map: pd.DataFrame, split: str, class_names: Sequence[str]) -> None:
    """Draw the points of one split in the frame of all splits, so that panels can be compared."""
    marks = class_marks(len(class_names))
    chosen = of_map[of_map["split"] == split]
    size = float(np.clip(12000 / max(len(chosen), 1), 6, 28))
    # Of very many classes, those of one mark are drawn at once: thousands of groups take minutes.
    groups: Any = chosen.groupby(chosen["label"] % NUM_MARKS if len(class_names) > NUM_MARKS else "label")
    for label, group in groups:
        mark = marks[int(label)]
        style = {"c": mark.color, "marker": mark.marker, "edgecolors": "#00000060", "linewidths": 0.2}
        axis.scatter(group["x"], group["y"], s=size, gid=class_names[int(label)], **style)
    low, width = _square(of_map)
    left, bottom = low
    axis.set(xticks=[], yticks=[], xlim=(left, left + width), ylim=(bottom, bottom + width), aspect="equal")
    inches = chosen.assign(**(MAP_INCHES / width * (chosen[["x", "y"]] - low)))
    style = {
        "bbox": {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#888888", "alpha": 0.85},
        "arrowprops": {"arrowstyle": "-", "color": "#444444", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 1},
    }
    for label, place in place_names(inches, class_names, MAP_INCHES, MAX_NAMES).items():
        point, center = (low + width / MAP_INCHES * np.array(inch) for inch in place)
        axis.annotate(
            class_names[label], point, center, ha="center", va="center", fontsize=FONT_POINTS, **style
        )


def _square(of_map: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Lower left corner and width of the square around a map, with a margin."""
    places = of_map[["x", "y"]].to_numpy()
    low, high = places.min(axis=0), places.max(axis=0)
    width = 1.08 * max(float((high - low).max()), 1e-9)
    return (low + high - width) / 2, width


def _num_columns(class_names: Sequence[str], num_models: int) -> int:
    """Number of legend columns, wide enough for the longest name."""
    widest = 0.45 + 0.085 * max(map(len, class_names))
    most = max(1, min(len(class_names), int(PANEL_INCHES * num_models / widest)))
    # Balanced, so that no class is alone in the last row.
    return -(-len(class_names) // -(-len(class_names) // most))


def _add_legend(figure: Any, class_names: Sequence[str], num_columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=mark.color, marker=mark.marker, linestyle="", label=name)
        for name, mark in zip(class_names, class_marks(len(class_names)), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=num_columns, fontsize=9, frameon=False)
