"""Accuracy by the number of labelled images per class."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.figures.marks import BLUE, GREEN, ORANGE

# Each also has a place beside the point, as a share of the width, so that no interval hides another.
_STYLES: dict[str, tuple[dict[str, Any], float]] = {
    "k-NN": ({"color": BLUE, "fmt": "o-"}, -0.006),
    "class centre": ({"color": ORANGE, "fmt": "s--"}, 0.0),
    "logistic regression": ({"color": GREEN, "fmt": "^-."}, 0.006),
}
_NOTE = "The encoder is the same at every point: it was trained on all training images."


def draw_accuracies(curve: pd.DataFrame) -> Any:
    """Accuracy over the mean number of labelled images per class, a line with intervals per classifier.

    Args:
        curve: the table of `learning_curve`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(7.5, 5.4), layout="constrained")
    axis = figure.subplots()
    curve = curve.assign(mean=curve["num_images"] / curve["num_classes"])
    ends = np.log([curve["mean"].min(), curve["mean"].max()])
    # Wide enough for one of the numbers below the axis, also where there is a single point.
    width = max(ends[1] - ends[0], 1.0)
    axis.set_xlim(*np.exp(ends.mean() + np.array([-0.56, 0.56]) * width))
    for name, rows in curve.groupby("classifier", sort=False):
        style, place = _STYLES[str(name)]
        bars = abs(rows[["low", "high"]].to_numpy().T - rows["accuracy"].to_numpy())
        x = rows["mean"] * np.exp(place * width)
        axis.errorbar(x, rows["accuracy"], bars, **style, label=name, markersize=5, elinewidth=1, capsize=2)
    axis.set(
        xscale="log", xlabel="labelled training images per class (mean)", ylabel="accuracy on test images"
    )
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:,.4g}")
    axis.xaxis.set_minor_locator(LogLocator(subs=()))
    axis.grid(alpha=0.3)
    _mark_all(axis, curve.iloc[-1])
    figure.legend(loc="outside upper center", ncols=3)
    figure.supxlabel("\n".join([_describe_bars(curve), _NOTE]), fontsize=8)
    return figure


def _mark_all(axis: Any, last: Any) -> None:
    """Name the last point above the axis, where it collides with no number."""
    axis.axvline(last["mean"], color="#777777", linewidth=0.8, linestyle=":", zorder=0)
    above = axis.secondary_xaxis("top")
    label = f"all {last['num_images']:,} images, {last['mean']:,.4g} per class"
    above.set_xticks([last["mean"]], [label], ha="right")
    above.set_xticks([], minor=True)


def _describe_bars(curve: pd.DataFrame) -> str:
    """What the bars are, and how many classes were too small for the highest count."""
    bars = "Bars: 95 % intervals over draws and test images."
    few = curve[curve["images_per_class"] < curve["images_per_class"].max()]
    if few.empty or not few["num_smaller_classes"].iloc[-1]:
        return bars
    last = few.iloc[-1]
    classes = f"{last['num_smaller_classes']:,} of {last['num_classes']:,} classes"
    return f"{bars} {classes} have fewer than {last['images_per_class']:,} images: all of theirs are used."
