from typing import Any

import pandas as pd
import pytest

from supcon_pipeline.core.training.progress import flatten
from supcon_pipeline.run_values import Point, RunValues, curve_points, flat_parameters, headline_points
from supcon_pipeline.runs import RunBook


def _value_in(metrics: Any, name: str) -> float:
    """The number that a point should have: bounds are in the `intervals` of a group."""
    path, _, last = name.rpartition(".")
    if last in ("low", "high"):
        group, _, metric = path.rpartition(".")
        return float(flatten(metrics)[f"{group}.intervals.{metric}.{('low', 'high').index(last)}"])
    return float(flatten(metrics)[name])


def test_parameters_are_named_by_their_path_and_lists_are_one_text() -> None:
    given = {
        "seed": 0,
        "stage1": {"loss": {"temperature": 0.1}, "sizes": [8, 16], "ema": None, "compile": False},
    }
    assert flat_parameters(given) == {
        "seed": "0",
        "stage1.loss.temperature": "0.1",
        "stage1.sizes": "[8, 16]",
        "stage1.ema": "None",
        "stage1.compile": "False",
    }


def test_headlines_are_those_of_metrics_json_with_bounds_and_what_they_are_compared_with(
    finished_catalog: Any,
) -> None:
    metrics = finished_catalog.load("metrics")
    points = {name: value for name, value, step in headline_points(metrics) if step == 0}
    assert points == {name: _value_in(metrics, name) for name in points}
    assert {"classifier.accuracy", "classifier.accuracy.low", "classifier.accuracy.high"} <= points.keys()
    assert {"baseline.embedding.precision_at_1.low", "pixels.precision_at_1.high"} <= points.keys()


def test_a_curve_has_the_epochs_that_have_a_value() -> None:
    history = pd.DataFrame(
        {"epoch": [1, 2], "loss": [3.0, 2.5], "accuracy": [None, 0.5], "collapse_loss": None}
    )
    assert list(curve_points("stage2", history)) == [
        Point("stage2/loss", 3.0, 1),
        Point("stage2/loss", 2.5, 2),
        Point("stage2/accuracy", 0.5, 2),
    ]


@pytest.mark.parametrize("run_id", ["2026-01-01", "2026-01-02"])
def test_only_what_a_run_has_made_itself_is_its_own(finished_catalog: Any, run_id: str) -> None:
    from supcon_pipeline.pipeline_registry import whole_graph

    values = RunValues(RunBook(finished_catalog, whole_graph()), run_id)
    is_there = run_id == "2026-01-01"
    assert values.has_made(["encoder", "report"]) == is_there
    assert bool(values.points()) == is_there
    assert ("report" in values.pages(), "encoder" in values.pages()) == (is_there, False)
    assert (values.data_hash() == finished_catalog.load("metrics")["data_hash"]) == is_there
