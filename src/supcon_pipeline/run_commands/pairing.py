"""Two runs image by image, which says more of a difference than their intervals side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from supcon_pipeline.run_commands.books import Experiment, Summary

ExperimentRun = tuple[Experiment, Summary]
# Of runs whose parameters do not say.
_BOOTSTRAP = {"num_resamples": 1000, "seed": 0}


def paired_intervals(chosen: Sequence[ExperimentRun]) -> list[dict[tuple[str, str], tuple[float, float]]]:
    """95 % intervals of what each later run has more than the first, by group and metric.

    They are over the test images, or over the classes where train lacks those. Empty for a run that was not
    scored on the same images, or that has no scores by image, as those of earlier versions.
    """
    first, *others = chosen
    before = _scores(*first)
    return [_intervals(first, before, other) for other in others]


def _intervals(
    first: ExperimentRun, before: Mapping[str, pd.DataFrame], other: ExperimentRun
) -> dict[tuple[str, str], tuple[float, float]]:
    from supcon_pipeline.core.metrics.gains import paired_gains

    if first[1].metrics.get("data_hash") != other[1].metrics.get("data_hash"):
        return {}
    given = first[1].record["parameters"].get("evaluation", {}).get("bootstrap", _BOOTSTRAP)
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for group, after in _scores(*other).items():
        if group not in before or not after.index.equals(before[group].index):
            continue
        labels = _labels(first, after) if "recall_at_1" in after else None
        gains = paired_gains(_columns(after), _columns(before[group]), labels, **given)
        found |= {(group, name): (low, high) for name, (low, high) in gains["intervals"].items()}
    return found


def _scores(experiment: Experiment, run: Summary) -> dict[str, pd.DataFrame]:
    """What each test image scored, by group of metrics, with a row for each image."""
    found = {}
    queries, predictions = (_table(experiment, run, name) for name in ("query_scores", "predictions"))
    if queries is not None:
        found["embedding"] = queries.set_index("row")
    if predictions is not None and len(predictions):
        is_right = predictions["label"] == predictions["predicted"]
        found["classifier"] = pd.DataFrame({"accuracy": is_right.to_numpy()}, predictions["id"])
    return found


def _labels(first: ExperimentRun, scores: pd.DataFrame) -> Any:
    experiment, run = first
    read = experiment.book.read(run.run_id)
    samples = experiment.book._pinned("samples", read.artifacts["samples"] if read else run.run_id).load()
    return samples["label"].to_numpy()[scores.index]


def _table(experiment: Experiment, run: Summary, name: str) -> pd.DataFrame | None:
    """A table that a run made, if it did."""
    if experiment.catalog.get(name) is None:
        return None
    dataset: Any = experiment.book._pinned(name, run.run_id)
    return dataset.load() if dataset.exists() else None


def _columns(scores: pd.DataFrame) -> Mapping[str, Any]:
    return {str(name): column.to_numpy() for name, column in scores.items()}
