"""Verification: the two kinds of error against each other."""

from collections.abc import Mapping
from typing import Any

from supcon_pipeline.core.figures.marks import BLUE, ORANGE


def draw_errors(models: Mapping[str, Mapping[str, Any]]) -> Any:
    """The share of missed matches over the share of false ones, with the chosen threshold of each model.

    Args:
        models: `verification_report` by the name of the model, at most two.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.4), layout="constrained")
    axis = figure.subplots()
    for color, (name, report) in zip((BLUE, ORANGE), models.items(), strict=False):
        label = f"{name}: AUC {report['auc']:.4f}, EER {report['equal_error_rate']:.4f}"
        axis.plot(report["curve"]["fmr"], report["curve"]["fnmr"], color=color, label=label)
        threshold = f"threshold {report['threshold']:.3f} of validation"
        axis.plot(report["test"]["fmr"], report["test"]["fnmr"], "o", color=color, label=threshold)
    asked = next(iter(models.values()))["false_match_rate"]
    axis.axvline(asked, color="#777777", linewidth=0.8, linestyle=":", label=f"asked for: {asked:.2g}")
    lowest = min(next(rate for rate in report["curve"]["fmr"] if rate) for report in models.values())
    axis.set(xscale="log", xlim=(max(lowest / 2, 1e-6), 1), ylim=(-0.02, 1.02))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="false matches, of the pairs of two classes", ylabel="missed, of the pairs of one class")
    axis.set_title("Are two test images of one class? Lower is better")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="best")
    return figure
