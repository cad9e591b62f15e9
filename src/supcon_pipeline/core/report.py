"""The report: one page that needs nothing beside it."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_TITLES = {
    "projection": "after the projection head",
    "embedding": "before the projection head",
    "classifier": "linear classifier on the frozen encoder",
    "baseline embedding": "encoder trained by cross-entropy, same budget",
    "baseline classifier": "trained with that encoder",
    "pixels": "nearest neighbour on raw pixels",
}


def render_report(
    metrics: Mapping[str, Any],
    dataset_card: Mapping[str, Any],
    run_record: Mapping[str, Any],
    figures: Mapping[str, bytes],
) -> str:
    """The HTML of the report.

    Args:
        metrics: as `evaluation` gives them.
        dataset_card: as `data_prep` gives it.
        run_record: of the run that draws; its parameters are shown.
        figures: PNG files by title.
    """
    environment = Environment(
        loader=PackageLoader("supcon_pipeline.core", "templates"), autoescape=True, undefined=StrictUndefined
    )
    groups = {**metrics, **{f"baseline {name}": group for name, group in metrics["baseline"].items()}}
    scores = {
        name: {metric: value for metric, value in groups[name].items() if isinstance(value, float)}
        for name in _TITLES
    }
    encoded = {title: base64.b64encode(picture).decode("ascii") for title, picture in figures.items()}
    return environment.get_template("report.html").render(
        metrics=metrics,
        scores=scores,
        titles=_TITLES,
        card=dataset_card,
        run=run_record,
        parameters=json.dumps(run_record["parameters"], indent=2),
        figures=encoded,
    )
