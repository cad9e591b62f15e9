"""Runs side by side, and one alone with all that is known of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.pages.headlines import HEADLINES
from supcon_pipeline.core.training.progress import flatten
from supcon_pipeline.core.views.presets import expand_presets
from supcon_pipeline.datasets.stores import place_of
from supcon_pipeline.run_commands.books import Experiment, Summary, differing
from supcon_pipeline.run_commands.listing import duration, local_time
from supcon_pipeline.run_commands.pairing import ExperimentRun, paired_intervals


def show(experiment: Experiment, run: Summary) -> Iterator[RenderableType]:
    """What is known of a run: how it was made, from what, and what came out."""
    record = run.record
    about = {
        "run": run.run_id,
        "experiment": record["experiment"],
        "when": local_time(record["started"]),
        "outcome": record["outcome"],
        "duration": duration(run.seconds),
        "commit": record["commit"] or record.get("commit_reason") or "unknown",
        "based on": record["base"] or "no run",
    }
    for task in record["tasks"]:
        about[f"command {len(about) - 6}"] = f"{task['command']}  ({task['outcome']})"
    yield _rows(about)
    yield _titled("Parameters that differ from the files of today", _changed(experiment, run))
    yield _titled("Metrics", _metrics(run) if run.metrics else None)
    yield _titled("Artifacts", _artifacts(experiment, run))


def _rows(about: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in about.items():
        table.add_row(Text(name), Text(value))
    return table


def _titled(title: str, table: Table | None) -> RenderableType:
    if table is None or not table.row_count:
        return Text(f"\n{title}: none")
    table.box, table.pad_edge = None, False
    # A title of the table itself would be broken to its width.
    return Group(Text(f"\n{title}", style="italic"), table)


def _changed(experiment: Experiment, run: Summary) -> Table:
    table = Table("parameter", "this run", "files")
    for name, (value, today) in parameter_changes(experiment, run).items():
        table.add_row(*map(Text, (name, _word(value), _word(today))))
    return table


def parameter_changes(experiment: Experiment, run: Summary) -> dict[str, tuple[Any, Any]]:
    """The parameters of a run that the files of today do not have, each with the value in the files.

    A parameter that the files leave out has its default there, and counts only where it was given by hand.
    """
    today = _with_policies(experiment.config["parameters"])
    files = flatten(today)
    given = {name for task in run.record["tasks"] for name in flatten(task["given"])}
    changes = differing(run.record["parameters"], today)
    groups = run.record["parameters"].keys()
    return {
        name: values
        for name, values in changes.items()
        if name.partition(".")[0] in groups and (name in files or name in given)
    }


def _with_policies(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of files with the transforms that presets stand for, as records have them."""
    found = {}
    for name, value in parameters.items():
        found[name] = _with_policies(value) if isinstance(value, Mapping) else value
        if name == "transforms":
            # A preset that is not known is refused by a run; here it is a difference.
            with suppress(InputError):
                found[name] = expand_presets(value)
    return found


def _metrics(run: Summary) -> Table:
    table = Table("metric")
    others = [name for name in ("published", "baseline") if name in run.metrics]
    for column in ("contrastive", "95 % interval", *others):
        table.add_column(column, justify="right")
    for group, metric, short, _ in HEADLINES:
        value = _value(run, group, metric)
        if value is not None:
            ends = _interval(run, group, metric)
            interval = f"{ends[0]:.4f}-{ends[1]:.4f}" if ends else ""
            beside = [_number(run.metrics[name].get(group, {}).get(metric)) for name in others]
            table.add_row(f"{group} {short}", _number(value), interval, *beside)
    return table


def _artifacts(experiment: Experiment, run: Summary) -> Table:
    table = Table("artifact", "made by run", "file")
    table.columns[2].overflow = "fold"
    read = experiment.book.read(run.run_id)
    for name, version in sorted((read.artifacts if read else {}).items()):
        place = place_of(experiment.book._pinned(name, version), experiment.project_path)
        table.add_row(*map(Text, (name, version, place)))
    return table


def compare(chosen: Sequence[ExperimentRun]) -> Iterator[RenderableType]:
    """What differs between runs, and their metrics side by side; differences are from the first."""
    runs = [run for _, run in chosen]
    yield _titled("What differs", _differences(runs))
    if any(run.metrics for run in runs):
        yield _titled("Metrics on the test images", _compared_metrics(chosen))
        hashes = {run.metrics.get("data_hash") for run in runs if run.metrics}
        note = (
            "A difference is marked * where its 95 % interval, image by image, has no 0 in it, or, where "
            "there is none, where the intervals of the two runs do not overlap."
        )
        if len(hashes) > 1:
            note += " These runs were not measured on the same images."
        yield Text(f"\n{note}")
    else:
        yield Text("\nMetrics on the test images: none")


def _differences(runs: Sequence[Summary]) -> Table:
    table = Table("", *(escape(run.run_id) for run in runs))
    described = [_comparable(run) for run in runs]
    for name in dict.fromkeys(name for fields in described for name in fields):
        values = [fields.get(name) for fields in described]
        if any(value != values[0] for value in values):
            table.add_row(*map(Text, [name, *map(_word, values)]))
    return table


def _comparable(run: Summary) -> dict[str, Any]:
    """What two runs may differ in: parameters, code, packages, device, and data."""
    record = run.record
    task: dict[str, Any] = dict(record["tasks"][-1]) if record["tasks"] else {}
    packages = {f"package {name}": version for name, version in task.get("packages", {}).items()}
    origin = {
        "experiment": record["experiment"],
        "commit": record["commit"],
        "base": record["base"],
        "device": task.get("device"),
        "data": (run.metrics.get("data_hash") or "")[:12] or None,
    }
    return {**flatten(record["parameters"]), **origin, **packages}


def _compared_metrics(chosen: Sequence[ExperimentRun]) -> Table:
    runs = [run for _, run in chosen]
    first, *others = runs
    paired = paired_intervals(chosen)
    table = Table("metric", *(escape(run.run_id) for run in runs))
    for other in others:
        table.add_column(escape(f"{other.run_id} - {first.run_id}"), justify="right")
    for group, metric, short, _ in HEADLINES:
        values = [_number(_value(run, group, metric)) for run in runs]
        if any(values):
            changes = [
                _change(first, other, group, metric, intervals.get((group, metric)))
                for other, intervals in zip(others, paired, strict=True)
            ]
            table.add_row(*map(Text, [f"{group} {short}", *values, *changes]))
    return table


def _change(
    first: Summary, other: Summary, group: str, metric: str, paired: tuple[float, float] | None
) -> str:
    """The difference of a metric and its interval, if there is one, with a mark where it is certain."""
    before, after = _value(first, group, metric), _value(other, group, metric)
    if before is None or after is None:
        return ""
    if paired is not None:
        mark = " *" if paired[0] > 0 or paired[1] < 0 else "  "
        return f"{after - before:+.4f} ({paired[0]:+.4f} to {paired[1]:+.4f}){mark}"
    left, right = _interval(first, group, metric), _interval(other, group, metric)
    is_apart = left is not None and right is not None and (left[1] < right[0] or right[1] < left[0])
    return f"{after - before:+.4f}{' *' if is_apart else '  '}"


def _value(run: Summary, group: str, metric: str) -> float | None:
    value = run.metrics.get(group, {}).get(metric)
    return float(value) if value is not None else None


def _interval(run: Summary, group: str, metric: str) -> tuple[float, float] | None:
    ends = run.metrics.get(group, {}).get("intervals", {}).get(metric)
    return (ends[0], ends[1]) if ends else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _word(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
