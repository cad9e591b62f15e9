"""The report: one page that needs nothing beside it."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from supcon_pipeline.core.metrics.calibration import CALIBRATED
from supcon_pipeline.core.pages.headlines import (
    describe_gains,
    describe_images,
    describe_without_near_duplicates,
)
from supcon_pipeline.core.pages.pictures import OF_KNOWN_CLASSES, PICTURES, Picture
from supcon_pipeline.core.pages.rendering import embed_png, open_templates

# Of the most confused classes.
NUM_PAIRS = 10
# Longer tables are cut to those that most need a look.
MAX_CLASSES = 200
# Groups of metrics, in order; one that a run has not is left out.
_TITLES = {
    "projection": "after the projection head",
    "embedding": "before the projection head",
    "classifier": "linear classifier on the frozen encoder",
    "knn": "weighted k-NN on the embedding, no second stage",
    "reranked": "the embedding, with neighbours in common counted",
    "expanded": "the embedding, with queries expanded by what they find",
    "published embedding": "the weights that training starts from, before it",
    "published classifier": "linear classifier on these weights",
    "baseline embedding": "encoder trained by cross-entropy",
    "baseline classifier": "trained with that encoder",
    "verification": "are two images of one class? By their similarity, with intervals over the classes",
    "published verification": "by the weights that training starts from",
    "baseline verification": "by the encoder trained by cross-entropy",
    "pixels": "nearest neighbour on raw pixels",
}
_REQUIRED = ("projection", "embedding", "classifier", "pixels")
# What is set side by side.
_TABLES = {
    "Features": (
        *("projection", "embedding", "reranked", "expanded"),
        *("published embedding", "baseline embedding", "pixels"),
    ),
    "Classifiers": ("classifier", "knn", "published classifier", "baseline classifier"),
    "Pairs of images": ("verification", "published verification", "baseline verification"),
}


def render_report(
    metrics: Mapping[str, Any],
    dataset_card: Mapping[str, Any],
    run_record: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    interactive_map: str,
    confused_pairs: pd.DataFrame,
    classifier_metrics: Mapping[str, Any],
    detection: Mapping[str, Any] | None = None,
) -> str:
    """The HTML of the report.

    Args:
        metrics: as `evaluation` gives them.
        dataset_card: as `data_prep` gives it.
        run_record: of the run that draws.
        pictures: PNG files by artifact name; one that is not known here has its name as title.
        interactive_map: a plotly figure as JSON.
        confused_pairs: `label`, `predicted`, `count` and `share`, the most confused first.
        classifier_metrics: of the linear classifier, with its classes; empty where test has classes that
            train lacks.
        detection: as `out_of_distribution` gives it, where it has run.
    """
    from plotly.offline import get_plotlyjs

    # A training from scratch had no published weights.
    models = {"published": metrics.get("published", {}), "baseline": metrics["baseline"]}
    beside = {f"{model} {name}": group for model, groups in models.items() for name, group in groups.items()}
    groups = {**metrics, **beside}
    # Without classes that train knows, there is no classifier; without two images of one class, no pair.
    is_there = {
        "Features": True,
        "Classifiers": classifier_metrics,
        "Pairs of images": "verification" in groups,
    }
    compared = [title for title in _TABLES if is_there[title]]
    # Those of the trainings: the run that draws may have others and have trained nothing.
    parameters = {name: checkpoint["parameters"] for name, checkpoint in metrics["checkpoint"].items()}
    template = open_templates().get_template("report.html")
    return template.render(
        metrics=metrics,
        images=describe_images(metrics),
        gains=describe_gains(metrics),
        without=describe_without_near_duplicates(metrics),
        tables={title: _compare(groups, _TABLES[title]) for title in compared},
        titles={**_TITLES, "baseline embedding": _baseline_title(metrics["baseline_differs"])},
        card=dataset_card,
        run=run_record,
        parameters=json.dumps(parameters, indent=2),
        pictures=_describe(pictures, is_unseen=not classifier_metrics),
        num_classes=len(dataset_card["class_names"]),
        classes=_worst_classes(classifier_metrics.get("per_class", {})),
        counted=_smallest_classes(dataset_card["class_names"], dataset_card["counts"]),
        pairs=confused_pairs.head(NUM_PAIRS).to_dict("records"),
        detection=detection,
        # No text of the figure can end the script that holds it.
        interactive_map=Markup(interactive_map.replace("<", "\\u003c")),
        plotly=Markup(get_plotlyjs()),
    )


def _worst_classes(per_class: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """All classes; of very many, those with images and the lowest F1."""
    if len(per_class) <= MAX_CLASSES:
        return dict(per_class)
    worst = sorted(per_class, key=lambda name: (not per_class[name]["support"], per_class[name]["f1"]))
    return {name: per_class[name] for name in worst[:MAX_CLASSES]}


def _smallest_classes(class_names: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """All classes; of very many, those with the fewest images."""
    if len(class_names) <= MAX_CLASSES:
        return list(class_names)
    return sorted(class_names, key=lambda name: sum(split[name] for split in counts.values()))[:MAX_CLASSES]


def _baseline_title(differences: Sequence[str]) -> str:
    budget = f"with other {', '.join(differences)}" if differences else "same budget"
    return f"{_TITLES['baseline embedding']}, {budget}"


def _compare(groups: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A column per group, a row per metric; each cell a value and an interval, empty where there is none."""
    columns = [name for name in names if name in groups or name in _REQUIRED]
    scores = [_scores(groups[name]) for name in columns]
    metrics = list(dict.fromkeys(metric for column in scores for metric in column))
    rows = {metric: [column.get(metric, ("", "")) for column in scores] for metric in metrics}
    return {"columns": columns, "rows": rows}


def _scores(group: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Value and interval of each metric of a group."""
    numbers = {name: value for name, value in group.items() if isinstance(value, float)}
    intervals, calibrated = dict(group.get("intervals", {})), group.get("calibrated")
    if calibrated:
        for name in CALIBRATED:
            numbers[f"calibrated {name}"] = calibrated[name]
            intervals[f"calibrated {name}"] = calibrated["intervals"][name]
    ranges = {name: f"{low:.3f}–{high:.3f}" for name, (low, high) in intervals.items()}  # noqa: RUF001
    return {name: (f"{value:.4f}", ranges.get(name, "")) for name, value in numbers.items()}


def _describe(pictures: Mapping[str, bytes], is_unseen: bool) -> list[dict[str, Any]]:
    """Title, text and encoded file of each picture, the known ones first and in their order."""
    order = [*(name for name in PICTURES if name in pictures), *(pictures.keys() - PICTURES.keys())]
    order = [name for name in order if not (is_unseen and name in OF_KNOWN_CLASSES)]
    described = []
    for name in order:
        words = name.replace("_", " ")
        title, text = PICTURES.get(name, Picture(words, words))
        # The header of a PNG has its size; with it, a page does not jump when a picture comes.
        width, height = struct.unpack(">II", pictures[name][16:24])
        address = embed_png(pictures[name])
        described.append({"title": title, "text": text, "address": address, "width": width, "height": height})
    return described
