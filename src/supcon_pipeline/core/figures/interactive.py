"""Interactive t-SNE maps, in which hovering over a point shows what image it is."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import SPLITS
from supcon_pipeline.core.figures.marks import Mark, class_marks
from supcon_pipeline.core.figures.names import short_name

# A browser stumbles over more: then all classes of a map and split share a trace.
MAX_TRACES = 500
# Longer names in the legend would leave no room for the maps.
MAX_LETTERS = 24
# Validation and test images stand out, as they were not trained on.
_STYLES = {
    "train": {"size": 4.5, "opacity": 0.45},
    "validation": {"size": 6, "opacity": 0.9},
    "test": {"size": 6.5, "opacity": 1.0},
}
_HOVER = "<b>%{customdata[0]}</b><br>label %{customdata[1]}%{customdata[2]}<br>%{meta}<extra></extra>"


def draw_interactive_tsne(
    points: pd.DataFrame, class_names: Sequence[str], num_images: Mapping[str, int]
) -> Any:
    """The maps of all models side by side, as a plotly figure with a menu of splits and seeds.

    Hovering over a point shows the id, label and, if there is one, prediction of the image. A click on a
    class in the legend hides or shows it in every map; with so many classes that each would be a trace too
    many, there is no legend.

    Args:
        points: one row per model, seed and image, with `model`, `seed`, `split`, `id`, `label`, `x`, `y` and
            `predicted_class`, which is missing where nothing was predicted.
        class_names: one name per class.
        num_images: number of images in each split, of which points may show only a part.
    """
    from plotly.subplots import make_subplots

    models, keys = list(points["model"].unique()), ["model", "seed", "split"]
    has_legend = len(class_names) + len(points.groupby([*keys, "label"])) <= MAX_TRACES
    figure = make_subplots(cols=len(models), subplot_titles=models, horizontal_spacing=0.03)
    marks = class_marks(len(class_names))
    entries = list(zip(class_names, marks, strict=True)) if has_legend else []
    for name, mark in entries:
        figure.add_trace(_legend_entry(name, mark), row=1, col=1)
    views: list[dict[str, Any]] = [{} for _ in entries]
    points = _rounded(points)
    groups: Any = points.groupby([*keys, "label"] if has_legend else keys, sort=False)
    for (model, seed, split, *label), part in groups:
        name = class_names[int(label[0])] if label else "all classes"
        trace = _scatter(part, str(split), name, _style(part["label"], marks))
        figure.add_trace(trace, row=1, col=models.index(model) + 1)
        views.append({"seed": seed, "split": split})
    choices = _choices(points)
    is_shown = [_visible(views, *choice) for choice in choices]
    for trace, visible in zip(figure.data, is_shown[0], strict=True):
        trace.visible = visible
    buttons = [
        {"label": label, "method": "restyle", "args": [{"visible": visible}]}
        for label, visible in zip(_labels(choices), is_shown, strict=True)
    ]
    shown, total = len(points.drop_duplicates("id")), sum(num_images.values())
    title = f"{total:,} images" if shown == total else f"{shown:,} of {total:,} images"
    figure.update_layout(_layout(title, buttons), showlegend=has_legend)
    axis = {"showticklabels": False, "zeroline": False, "gridcolor": "#eef1f4"}
    figure.update_xaxes(axis).update_yaxes(axis)
    for trace in figure.data:
        # The same scale for both axes, because a map shows distances.
        figure.layout[trace.yaxis.replace("y", "yaxis")].scaleanchor = trace.xaxis
    return figure


def _style(labels: pd.Series, marks: Sequence[Mark]) -> dict[str, Any]:
    """Colour and symbol of points: one for all, or, where they are of several classes, one for each."""
    if (labels == labels.iloc[0]).all():
        mark = marks[int(labels.iloc[0])]
        return {"color": mark.color, "symbol": mark.symbol}
    chosen = [marks[int(label)] for label in labels]
    return {"color": [mark.color for mark in chosen], "symbol": [mark.symbol for mark in chosen]}


def _rounded(points: pd.DataFrame) -> pd.DataFrame:
    """The points rounded to 1/10,000 of their extent, finer than a screen, to keep the file small."""
    places = points[["x", "y"]]
    extent = float((places.max() - places.min()).max())
    num_digits = 4 - math.floor(math.log10(extent)) if extent > 0 else 0
    return points.assign(**places.round(num_digits))


def _choices(points: pd.DataFrame) -> list[tuple[Any, Sequence[str]]]:
    """Seed and splits of each menu entry; the first is shown initially."""
    splits = [split for split in SPLITS if (points["split"] == split).any()]
    parts: list[Sequence[str]] = [splits, *([split] for split in splits if len(splits) > 1)]
    return [(seed, part) for seed in points["seed"].unique() for part in parts]


def _labels(choices: Sequence[tuple[Any, Sequence[str]]]) -> list[str]:
    has_seeds = len({seed for seed, _ in choices}) > 1
    words = [part[0] if len(part) == 1 else "all splits" for _, part in choices]
    return [
        f"{word}, seed {seed}" if has_seeds else word for (seed, _), word in zip(choices, words, strict=True)
    ]


def _visible(views: Sequence[Mapping[str, Any]], seed: Any, splits: Sequence[str]) -> list[bool]:
    """Which traces a menu entry shows; those without a view are legend entries."""
    return [not view or (view["seed"] == seed and view["split"] in splits) for view in views]


def _legend_entry(name: str, mark: Mark) -> Any:
    import plotly.graph_objects as go

    marker = {"color": mark.color, "symbol": mark.symbol, "size": 9}
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=_as_text(short_name(name, MAX_LETTERS)),
        legendgroup=name,
        marker=marker,
    )


def _scatter(part: pd.DataFrame, split: str, name: str, style: Mapping[str, Any]) -> Any:
    import plotly.graph_objects as go

    predictions = part["predicted_class"]
    # All are missing where no class is known, and are then no words.
    columns = (part["id"], part["class_name"], predictions.astype(object).where(predictions.notna(), ""))
    identity, class_name, predicted = (column.astype(str).map(_as_text) for column in columns)
    prediction_lines = np.where(predictions.isna(), "", "<br>predicted " + predicted)
    line = {"width": 0.4, "color": "#444"}
    return go.Scatter(
        x=part["x"].tolist(),
        y=part["y"].tolist(),
        customdata=np.column_stack([identity, class_name, prediction_lines]).tolist(),
        mode="markers",
        name=_as_text(name),
        meta=split,
        legendgroup=name,
        showlegend=False,
        marker={**style, "line": line, **_STYLES[split]},
        hovertemplate=_HOVER,
    )


def _as_text(name: str) -> str:
    """The name escaped so that plotly shows it as it is; it parses HTML, except for escaped quotes."""
    return html.escape(name, quote=False)


def _layout(title: str, buttons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "title": {
            "text": f"t-SNE of the embeddings: {title}",
            "font": {"size": 15},
            "x": 0.01,
            "y": 0.985,
            "yanchor": "top",
        },
        "height": 640,
        "margin": {"l": 10, "r": 10, "t": 120, "b": 10},
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "legend": {
            "title": {"text": "click to hide or show"},
            "itemsizing": "constant",
            "traceorder": "normal",
            "y": 1,
        },
        # Below the title, above the names of the models.
        "updatemenus": [
            {
                "buttons": list(buttons),
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": 32},
            }
        ],
    }
