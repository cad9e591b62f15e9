"""Still pictures of t-SNE maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.figures.marks import NUM_MARKS, class_marks
from supcon_pipeline.core.figures.names import short_name, show_as_written
from supcon_pipeline.core.images import SPLITS

# More names hide the points.
MAX_NAMES = 30
MAX_LETTERS = 24
PANEL_INCHES = 6.2


def draw_tsne(points: pd.DataFrame, class_names: Sequence[str], num_images: Mapping[str, int]) -> Any:
    """A column per model, a row per seed and split; each class has a mark, and its name where it is compact.

    Args:
        points: one row per model, seed and image, with `model`, `seed`, `split`, `label`, `x` and `y`.
        class_names: one name per class.
        num_images: of each split, of which the points may be a part.
    """
    from matplotlib.figure import Figure

    class_names = [short_name(name, MAX_LETTERS) for name in class_names]
    models, seeds = list(points["model"].unique()), list(points["seed"].unique())
    rows = [(seed, split) for seed in seeds for split in SPLITS if (points["split"] == split).any()]
    num_legend_rows = -(-len(class_names) // _num_columns(class_names, len(models)))
    height = (PANEL_INCHES - 0.4) * len(rows) + 0.6 + 0.2 * num_legend_rows
    figure = Figure(figsize=(PANEL_INCHES * len(models), height), layout="constrained")
    axes = figure.subplots(len(rows), len(models), squeeze=False)
    for column, model in zip(axes.T, models, strict=True):
        for axis, (seed, split) in zip(column, rows, strict=True):
            of_map = points[(points["model"] == model) & (points["seed"] == seed)]
            _draw_panel(axis, of_map, split, class_names)
            title = f"{model}, {split} ({_share(of_map, split, num_images)})"
            axis.set(title=title if len(seeds) == 1 else f"{title}, seed {seed}")
    figure.suptitle(
        "t-SNE of the embeddings: near is alike; sizes of groups and gaps between them say nothing"
    )
    if len(class_names) <= NUM_MARKS:
        _add_legend(figure, class_names, _num_columns(class_names, len(models)))
    return show_as_written(figure)


def _share(of_map: pd.DataFrame, split: str, num_images: Mapping[str, int]) -> str:
    """How many images of the split are shown."""
    shown, total = int((of_map["split"] == split).sum()), num_images[split]
    return f"{total:,} images" if shown == total else f"{shown:,} of {total:,} images"


def _draw_panel(axis: Any, of_map: pd.DataFrame, split: str, class_names: Sequence[str]) -> None:
    """The points of a split on the map of all of them, so that the panels of a map can be compared."""
    marks = class_marks(len(class_names))
    chosen = of_map[of_map["split"] == split]
    size = float(np.clip(12000 / max(len(chosen), 1), 6, 28))
    groups: Any = chosen.groupby("label")
    for label, of_class in groups:
        mark = marks[int(label)]
        style = {"c": mark.color, "marker": mark.marker, "edgecolors": "#00000060", "linewidths": 0.2}
        axis.scatter(of_class["x"], of_class["y"], s=size, gid=class_names[int(label)], **style)
    left, right, bottom, top = _limits(of_map)
    axis.set(xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
    for label, (x, y) in place_names(chosen, class_names, (right - left, top - bottom)).items():
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#888888", "alpha": 0.85}
        axis.annotate(class_names[label], (x, y), ha="center", va="center", fontsize=9, bbox=box)


def _limits(of_map: pd.DataFrame) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a map with a margin."""
    low, high = of_map[["x", "y"]].min(), of_map[["x", "y"]].max()
    margin = 0.04 * (high - low).clip(lower=1e-9)
    (left, bottom), (right, top) = low - margin, high + margin
    return left, right, bottom, top


def compactness(points: pd.DataFrame, num_neighbours: int = 10) -> pd.Series:
    """For each label the share of its points' nearest neighbours on the map that have it, best first."""
    from sklearn.neighbors import NearestNeighbors

    places, labels = points[["x", "y"]].to_numpy(), points["label"].to_numpy()
    k = min(num_neighbours, len(points) - 1)
    if k < 1:
        return pd.Series(1.0, index=pd.unique(labels))
    nearest = NearestNeighbors(n_neighbors=k).fit(places).kneighbors(return_distance=False)
    shares = pd.Series((labels[nearest] == labels[:, None]).mean(axis=1))
    return shares.groupby(labels).mean().sort_values(ascending=False, kind="stable")


def place_names(
    points: pd.DataFrame, class_names: Sequence[str], extent: tuple[float, float]
) -> dict[int, tuple[float, float]]:
    """Where names stand: at the medians of the most compact classes, none upon another, at most 30.

    Args:
        points: of one panel, with `label`, `x` and `y`.
        class_names: one name per class.
        extent: width and height of the panel in the units of the points.
    """
    placed: dict[int, tuple[float, float]] = {}
    if points.empty:
        return placed
    medians = points.groupby("label")[["x", "y"]].median()
    # Inches of a letter and of a line at nine points, with the box around them.
    unit_x, unit_y = extent[0] / PANEL_INCHES, extent[1] / PANEL_INCHES
    for label in compactness(points).index[:MAX_NAMES]:
        x, y = medians.loc[label]
        is_free = all(
            abs(x - other_x) > unit_x * (0.2 + 0.045 * (len(class_names[label]) + len(class_names[other])))
            or abs(y - other_y) > 0.26 * unit_y
            for other, (other_x, other_y) in placed.items()
        )
        if is_free:
            placed[int(label)] = (float(x), float(y))
    return placed


def _num_columns(class_names: Sequence[str], num_models: int) -> int:
    """Columns of the legend that fit its longest name."""
    widest = 0.45 + 0.085 * max(map(len, class_names))
    return max(1, min(len(class_names), int(PANEL_INCHES * num_models / widest)))


def _add_legend(figure: Any, class_names: Sequence[str], num_columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=mark.color, marker=mark.marker, linestyle="", label=name)
        for name, mark in zip(class_names, class_marks(len(class_names)), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=num_columns, fontsize=9, frameon=False)
