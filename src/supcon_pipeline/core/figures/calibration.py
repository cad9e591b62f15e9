"""Reliability diagrams: does the confidence of a classifier match its accuracy?"""

from collections.abc import Mapping
from typing import Any

from supcon_pipeline.core.figures.marks import BLUE, ORANGE


def draw_calibration(classifiers: Mapping[str, Mapping[str, Any]]) -> Any:
    """Accuracy against confidence before and after temperature scaling, a column per classifier.

    Below them, the number of images at each confidence: a point that stands for few images may be far from
    the diagonal by chance.

    Args:
        classifiers: by title, with `reliability` (`confidence`, `accuracy` and `count` of each bin that has
            images) and `expected_calibration_error`; `calibrated` holds the same, and a `temperature`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(classifiers), 6.2), layout="constrained")
    axes = figure.subplots(
        2, len(classifiers), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1)
    )
    for (above, below), (title, scores) in zip(axes.T, classifiers.items(), strict=True):
        after = scores["calibrated"]
        above.plot([0, 1], [0, 1], ":", color="#777777", label="perfect")
        _draw_reliability(above, below, scores, "before scaling", ORANGE, "o--")
        _draw_reliability(above, below, after, f"temperature {after['temperature']:.2f}", BLUE, "s-")
        above.set(title=title, xlim=(0, 1.02), ylim=(0, 1.02))
        above.legend(fontsize=8, loc="best")
        below.set(xlabel="confidence", yscale="log")
    axes[0, 0].set(ylabel="accuracy")
    axes[1, 0].set(ylabel="images")
    figure.suptitle("Calibration on test images; ECE is the mean distance to the diagonal")
    return figure


def _draw_reliability(
    above: Any, below: Any, scores: Mapping[str, Any], name: str, color: str, style: str
) -> None:
    bins = scores["reliability"]
    label = f"{name}: ECE {scores['expected_calibration_error']:.3f}"
    above.plot(bins["confidence"], bins["accuracy"], style, color=color, markersize=5, label=label)
    below.plot(bins["confidence"], bins["count"], style, color=color, markersize=4)
