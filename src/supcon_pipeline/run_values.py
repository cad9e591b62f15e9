"""What a run has made, as trackers of experiments take it: parameters, metrics, curves, pages."""

from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from typing import Any, NamedTuple

import pandas as pd

from supcon_pipeline.commands import leaves
from supcon_pipeline.core.pages.headlines import headlines_of
from supcon_pipeline.datasets.documents import JSONDataset, TextDataset
from supcon_pipeline.datasets.figure import FigureDataset
from supcon_pipeline.runs import RunBook

# Kinds of artifacts that are for people.
_LOOKED_AT = (FigureDataset, TextDataset)


class Point(NamedTuple):
    """The value of a metric at a step; the step of a metric that is no curve is 0."""

    name: str
    value: float
    step: int


def flat_parameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters by dotted name, as text; a list is one text.

    Example:
        >>> flat_parameters({"stage1": {"loss": {"temperature": 0.1}, "view_sizes": [24, 32]}})
        {'stage1.loss.temperature': '0.1', 'stage1.view_sizes': '[24, 32]'}
    """
    return {name: str(value) for name, value in leaves(parameters)}


def headline_points(metrics: Mapping[str, Any]) -> Iterator[Point]:
    """The headline metrics of a run and of what it is compared with, each with the bounds of its interval.

    They have their names in `metrics.json`, and the bounds the same with `.low` and `.high`.

    Args:
        metrics: as `evaluation` gives them.
    """
    found: dict[str, float] = {}
    for group, metric, *_ in headlines_of(metrics):
        # What there was before; pixels are compared with the embedding.
        others = ("pixels",) if group == "embedding" else ()
        for path in (group, f"published.{group}", f"baseline.{group}", *others):
            values: Any = reduce(lambda inner, name: inner.get(name, {}), path.split("."), metrics)
            ends = values.get("intervals", {}).get(metric) or ()
            names = [f"{path}.{metric}{ending}" for ending in ("", ".low", ".high")]
            found |= zip(names, [values.get(metric), *ends], strict=False)
    return (Point(name, float(value), 0) for name, value in found.items() if value is not None)


def curve_points(stage: str, history: pd.DataFrame) -> Iterator[Point]:
    """The columns of a history by epoch, without the epochs that have no value.

    A name is that of the stage, a slash and that of the column: MLflow has a group of charts for each stage,
    and `baseline/` are validation images where `baseline.` are test images.

    Args:
        stage: what was trained.
        history: a row for each epoch.
    """
    for name, curve in history.set_index("epoch").items():
        for epoch, value in curve.dropna().items():
            yield Point(f"{stage}/{name}", float(value), int(epoch))  # type: ignore[call-overload]


class RunValues:
    """What a run itself has made, and what data it was made from.

    Args:
        book: the runs of the experiment.
        run_id: the run, which has begun.
    """

    def __init__(self, book: RunBook, run_id: str):
        run = book.read(run_id)
        self._book, self._artifacts = book, run.artifacts if run else {}
        self._own = [name for name, version in self._artifacts.items() if version == run_id]

    def data_hash(self) -> str | None:
        """The hash of the data; none where they are not yet prepared."""
        card = self.load("dataset_card")
        return card["data_hash"] if card else None

    def points(self) -> list[Point]:
        """The headline metrics and the curves of what was trained."""
        points = list(headline_points(self.load("metrics"))) if "metrics" in self._own else []
        for name in self._own:
            if name.endswith("_history"):
                points += curve_points(name.removesuffix("_history"), self.load(name))
        return points

    def pages(self) -> dict[str, str]:
        """The artifacts that a person looks at: file name by name."""
        datasets = {name: self._book.catalog.get(name) for name in sorted(self._own)}
        return {
            name: dataset._filepath.name
            for name, dataset in datasets.items()
            if isinstance(dataset, _LOOKED_AT) or (name == "metrics" and isinstance(dataset, JSONDataset))
        }

    def has_made(self, names: Collection[str]) -> bool:
        """Whether all of some artifacts are the run's own."""
        return set(names) <= set(self._own)

    def load(self, name: str) -> Any:
        """An artifact of the run, or of the one it is based on; none where there is none."""
        version = self._artifacts.get(name)
        return None if version is None else self._book._pinned(name, version).load()
