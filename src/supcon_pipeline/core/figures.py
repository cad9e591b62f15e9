"""Arrays to figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int


def tsne_map(
    embeddings: Float[np.ndarray, "n dim"],
    perplexity: float,
    num_iterations: int,
    seed: int,
    num_jobs: int,
) -> Float[np.ndarray, "n 2"]:
    """Two coordinates for each embedding, by t-SNE over the unit-length rows.

    Raises:
        ValueError: where the perplexity is too large for the number of rows.

    Source:
        van der Maaten 2014, "Accelerating t-SNE using tree-based algorithms" (Barnes-Hut, angle 0.5).
    """
    from MulticoreTSNE import MulticoreTSNE

    if 3 * perplexity >= len(embeddings) - 1:
        raise ValueError(
            f"visualization.tsne.perplexity must be below a third of the number of images, "
            f"got {perplexity} for {len(embeddings)}; lower it"
        )
    rows = np.asarray(embeddings, dtype=np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    tsne = MulticoreTSNE(
        n_components=2,
        perplexity=perplexity,
        n_iter=num_iterations,
        random_state=seed % 2**31,
        n_jobs=num_jobs,
    )
    coordinates: np.ndarray = tsne.fit_transform(rows)
    return coordinates


def class_colors(num_classes: int) -> list[Any]:
    """One colour per class: the colour-blind safe set of Okabe and Ito (2008), or many from one scale."""
    import matplotlib

    okabe_ito = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
    if num_classes <= len(okabe_ito):
        return okabe_ito[:num_classes]
    if num_classes <= 10:
        return [*okabe_ito, "#999999", "#882255"][:num_classes]
    return [matplotlib.colormaps["turbo"](index / (num_classes - 1)) for index in range(num_classes)]


def draw_tsne(points: pd.DataFrame, class_names: Sequence[str]) -> Any:
    """A row per model and a panel per split, each class a colour and its name at its median.

    Args:
        points: one row per model and image, with `model`, `split`, `label`, `x` and `y`.
        class_names: one name per class.
    """
    from matplotlib.figure import Figure

    models = list(points["model"].unique())
    splits = [split for split in ("train", "validation", "test") if (points["split"] == split).any()]
    figure = Figure(figsize=(6.4 * len(splits), 5.8 * len(models) + 0.4), layout="constrained")
    axes = figure.subplots(len(models), len(splits), sharex="row", sharey="row", squeeze=False)
    for row, model in zip(axes, models, strict=True):
        for axis, split in zip(row, splits, strict=True):
            chosen = points[(points["model"] == model) & (points["split"] == split)]
            _scatter_classes(axis, chosen, class_names)
            axis.set(title=f"{model}, {split} ({len(chosen):,} images)", xticks=[], yticks=[])
    figure.suptitle("t-SNE of the embeddings")
    return figure


def _scatter_classes(axis: Any, points: Any, class_names: Sequence[str]) -> None:
    colors = class_colors(len(class_names))
    axis.scatter(points["x"], points["y"], c=[colors[label] for label in points["label"]], s=9, linewidths=0)
    for label, of_class in points.groupby("label"):
        middle = of_class[["x", "y"]].median()
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colors[label], "alpha": 0.85}
        axis.annotate(class_names[label], middle, ha="center", va="center", fontsize=9, bbox=box)


def draw_confusion(matrix: Int[np.ndarray, "c c"], class_names: Sequence[str]) -> Any:
    """Counts of label (row) against prediction (column); the colour is the share of the row."""
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(24.0, 3.0 + 0.45 * len(matrix))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(class_names))
    axis.set(xlabel="predicted", ylabel="label", title="Confusion of the classifier on test")
    axis.set_xticks(ticks, class_names, rotation=90 if len(ticks) > 12 else 0)
    axis.set_yticks(ticks, class_names)
    if len(matrix) <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=9)
    figure.colorbar(image, ax=axis, label="share of the label's images", shrink=0.8)
    return figure


def draw_curves(histories: Mapping[str, pd.DataFrame]) -> Any:
    """Loss and learning rate above, validation metrics below, one column per training.

    Args:
        histories: by title, with the columns `epoch`, `loss`, `lr`, `collapse_loss` and the metrics.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(histories), 7.2), layout="constrained")
    axes = figure.subplots(2, len(histories), squeeze=False)
    for (above, below), (title, history) in zip(axes.T, histories.items(), strict=True):
        above.set(title=title)
        _draw_loss(above, history)
        _draw_metrics(below, history)
    return figure


def _draw_loss(axis: Any, history: pd.DataFrame) -> None:
    lines = axis.plot(history["epoch"], history["loss"], color="#0072B2", label="training loss")
    if history["collapse_loss"].notna().any():
        label = "loss of a collapsed encoder"
        lines += axis.plot(history["epoch"], history["collapse_loss"], ":", color="#D55E00", label=label)
    rate = axis.twinx()
    lines += rate.plot(history["epoch"], history["lr"], "--", color="#E69F00", label="learning rate")
    axis.set(ylabel="loss")
    rate.set(ylabel="learning rate")
    axis.legend(handles=lines, loc="upper right", fontsize=8)


def _draw_metrics(axis: Any, history: pd.DataFrame) -> None:
    metrics = [str(name) for name in history if name not in ("epoch", "loss", "lr", "collapse_loss")]
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in metrics))
    for name in metrics:
        style = ":" if name.startswith("projection.") else "-"
        color = f"C{kinds.index(name.rpartition('.')[2])}"
        axis.plot(history["epoch"], history[name], style, color=color, label=name)
    axis.set(xlabel="epoch", ylabel="validation")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="best")


def draw_lr_curve(curve: pd.DataFrame, suggestion: Mapping[str, float]) -> Any:
    """The loss against the learning rate, with the suggested one.

    Args:
        curve: with the columns `lr`, `loss` and `smoothed_loss`.
        suggestion: with `suggested_lr` and `lowest_lr`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axis = figure.subplots()
    axis.plot(curve["lr"], curve["loss"], color="#56B4E9", alpha=0.5, linewidth=1, label="loss of each step")
    axis.plot(curve["lr"], curve["smoothed_loss"], color="#0072B2", label="smoothed")
    axis.axvline(
        suggestion["suggested_lr"], color="#009E73", label=f"suggested: {suggestion['suggested_lr']:.3g}"
    )
    axis.axvline(
        suggestion["lowest_lr"],
        color="#D55E00",
        linestyle=":",
        label=f"lowest: {suggestion['lowest_lr']:.3g}",
    )
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Learning-rate range test")
    axis.legend()
    return figure
