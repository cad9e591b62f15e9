"""Arrays to figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
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
        n_components=2, perplexity=perplexity, n_iter=num_iterations, random_state=seed, n_jobs=num_jobs
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


def draw_tsne(
    coordinates: Float[np.ndarray, "n 2"],
    labels: Int[np.ndarray, " n"],
    splits: Sequence[str],
    class_names: Sequence[str],
) -> Any:
    """One map, a panel per split on the same axes, each class a colour and its name at its median."""
    from matplotlib.figure import Figure

    colors = class_colors(len(class_names))
    panels = [split for split in ("train", "validation", "test") if split in set(splits)]
    figure = Figure(figsize=(6.4 * len(panels), 6.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, split in zip(axes, panels, strict=True):
        is_shown = np.asarray(splits) == split
        axis.scatter(
            *coordinates[is_shown].T, c=[colors[label] for label in labels[is_shown]], s=9, linewidths=0
        )
        axis.set(title=f"{split} ({is_shown.sum():,} images)", xticks=[], yticks=[])
        for label in np.unique(labels[is_shown]):
            middle = np.median(coordinates[is_shown & (labels == label)], axis=0)
            box = {
                "boxstyle": "round,pad=0.2",
                "facecolor": "white",
                "edgecolor": colors[label],
                "alpha": 0.85,
            }
            axis.annotate(class_names[label], middle, ha="center", va="center", fontsize=9, bbox=box)
    figure.suptitle("t-SNE of the embeddings")
    return figure


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


def draw_curves(histories: Mapping[str, Any]) -> Any:
    """Loss and learning rate above, validation metrics below, one column per stage.

    Args:
        histories: by stage, a table or mapping with the columns `epoch`, `loss`, `lr` and the metrics.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(histories), 7.2), layout="constrained")
    axes = figure.subplots(2, len(histories), squeeze=False)
    for (above, below), (stage, history) in zip(axes.T, histories.items(), strict=True):
        epochs = history["epoch"]
        (loss_line,) = above.plot(epochs, history["loss"], color="#0072B2", label="training loss")
        rate = above.twinx()
        (rate_line,) = rate.plot(
            epochs, history["lr"], color="#E69F00", linestyle="--", label="learning rate"
        )
        above.set(title=stage, ylabel="loss")
        rate.set(ylabel="learning rate")
        above.legend(handles=[loss_line, rate_line], loc="upper right")
        metrics = [name for name in history if name not in ("epoch", "loss", "lr")]
        for index, name in enumerate(metrics):
            style = "-" if not name.startswith("projection.") else ":"
            below.plot(epochs, history[name], style, color=f"C{index % 5}", label=name)
        below.set(xlabel="epoch", ylabel="validation")
        below.grid(alpha=0.3)
        below.legend(fontsize=8, loc="lower right")
    return figure
