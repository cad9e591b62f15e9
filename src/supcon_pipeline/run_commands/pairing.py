"""Two runs image by image, which says more of a difference than their intervals side by side."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from supcon_pipeline.run_commands.books import Experiment, Summary

ExperimentRun = tuple[Experiment, Summary]
# Of runs whose parameters do not say.
_BOOTSTRAP = {"num_resamples": 1000, "seed": 0}


def paired_intervals(
    first: ExperimentRun, other: ExperimentRun
) -> dict[tuple[str, str], tuple[float, float]]:
    """95 % intervals of what the other run has more than the first, by group and metric.

    They are over the test images, or over the classes where train lacks those. Empty where the runs were not
    scored on the same images, or a run of earlier versions has no scores by image.
    """
    from supcon_pipeline.core.metrics.gains import paired_gains

    if first[1].metrics.get("data_hash") != other[1].metrics.get("data_hash"):
        return {}
    before, after = _scores(*first), _scores(*other)
    given = first[1].record["parameters"].get("evaluation", {}).get("bootstrap", _BOOTSTRAP)
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for group in before.keys() & after.keys():
        values, others = after[group], before[group]
        if not values.index.equals(others.index):
            continue
        labels = _labels(first, values) if "recall_at_1" in values else None
        gains = paired_gains(_columns(values), _columns(others), labels, **given)
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
