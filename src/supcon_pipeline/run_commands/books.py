"""The runs of all experiments of a project, read without a session: starting one loads torch."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.context.context import _convert_paths_to_absolute_posix
from kedro.framework.project import settings
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.messages import name_some, nearest_names
from supcon_pipeline.core.training.progress import flatten
from supcon_pipeline.datasets.run_record import RunRecord, TaskEntry
from supcon_pipeline.projects import configuration_of
from supcon_pipeline.runs import RECORD, RunBook

# What a file of an experiment holds that has its records elsewhere.
_MOVING = re.compile(rf"{RECORD}|_reports|\broot\b")
_UNREADABLE = (DatasetError, OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Experiment:
    """An experiment and its configuration.

    Args:
        project_path: folder of the project.
        env: the environment, none for the default one.
    """

    project_path: Path
    env: str | None

    @cached_property
    def config(self) -> Any:
        """Its configuration loader."""
        return self.config_given(None)

    def config_given(self, params: dict[str, Any] | None) -> Any:
        """Its configuration loader where parameters are given, as by `--params`."""
        source = str(configuration_of(self.project_path))
        return settings.CONFIG_LOADER_CLASS(
            source, env=self.env, runtime_params=params, **settings.CONFIG_LOADER_ARGS
        )

    @property
    def name(self) -> str:
        """Its name; `base` for the default one."""
        return str(self.config.experiment)

    @cached_property
    def catalog(self) -> DataCatalog:
        """Its catalog, whose datasets are not built before they are asked for."""
        entries = _convert_paths_to_absolute_posix(self.project_path, self.config["catalog"])
        try:
            credentials = self.config["credentials"]
        except MissingConfigException:
            credentials = {}
        catalog: DataCatalog = settings.DATA_CATALOG_CLASS.from_config(entries, credentials=credentials)
        return catalog

    def records_alone(self) -> RunBook:
        """The records of its runs, without their artifacts; this is fast."""
        return RunBook(self.catalog, Pipeline([]))

    @cached_property
    def book(self) -> RunBook:
        """Its runs with their artifacts."""
        from supcon_pipeline.pipeline_registry import whole_graph

        return RunBook(self.catalog, whole_graph())

    @cached_property
    def unreadable(self) -> set[str]:
        """The ids of the runs whose records cannot be read."""
        dataset = self.records_alone().record_dataset("")
        return {*dataset.list_versions(full_path=False)} - {run.run_id for run in self.summaries}

    @cached_property
    def summaries(self) -> list["Summary"]:
        """Its runs, the newest first; one that cannot be read is named on the error stream and left out."""
        book, found = self.records_alone(), []
        for head in book.heads():
            try:
                record = book.record_dataset(head["run_id"]).load()
            except _UNREADABLE as error:
                click.echo(f"Left out: the record of run {head['run_id']} cannot be read: {error}", err=True)
                continue
            found.append(Summary(record, _read_metrics(book, head["run_id"])))
        return found


def _read_metrics(book: RunBook, run_id: str) -> dict[str, Any]:
    """The metrics that a run made; none where it made none, or where they cannot be read."""
    dataset = book._pinned("metrics", run_id)
    if not dataset.exists():
        return {}
    try:
        return dict(dataset.load())
    except _UNREADABLE as error:
        click.echo(f"Left out: the metrics of run {run_id} cannot be read: {error}", err=True)
        return {}


@dataclass(frozen=True)
class Summary:
    """A run as the commands see it.

    Args:
        record: its record.
        metrics: the metrics that it made, by group; may be empty.
    """

    record: RunRecord
    metrics: dict[str, Any]

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.record["run_id"]

    @property
    def seconds(self) -> float | None:
        """How long its sessions took, together; none for old runs, which do not say."""
        tasks = self.record["tasks"]
        return sum(map(_task_seconds, tasks)) if tasks else None

    def fields(self) -> dict[str, Any]:
        """All that can be sorted and filtered by: its own fields, then metrics and parameters."""
        own = {
            "id": self.run_id,
            "when": self.record["started"],
            "experiment": self.record["experiment"],
            "outcome": self.record["outcome"],
            "duration": self.seconds,
            "commit": self.record["commit"],
            "base": self.record["base"],
        }
        metrics = {name: x for name, x in flatten(self.metrics).items() if isinstance(x, int | float)}
        return {**metrics, **flatten(self.record["parameters"]), **own}


def _task_seconds(task: TaskEntry) -> float:
    """The time a session took; of a killed one, that of its nodes that ended."""
    if task["ended"] is None and task["outcome"] != "running":
        return sum(node["seconds"] or 0 for node in task["nodes"].values())
    end = datetime.fromisoformat(task["ended"]) if task["ended"] else datetime.now(UTC)
    return max((end - datetime.fromisoformat(task["started"])).total_seconds(), 0)


def experiments(project_path: Path, env: str | None) -> list[Experiment]:
    """One experiment, or where none is chosen all of them, the default one first."""
    if env is not None:
        return [Experiment(project_path, env)]
    source, arguments = configuration_of(project_path), settings.CONFIG_LOADER_ARGS
    default = {arguments["base_env"], arguments["default_run_env"]}
    names = sorted(path.name for path in source.iterdir() if path.is_dir() and path.name not in default)
    base = Experiment(project_path, None)
    return [base, *(Experiment(project_path, name) for name in names if _may_have_runs(base, source / name))]


def _may_have_runs(base: Experiment, folder: Path) -> bool:
    """Whether to read the configuration of an environment at all, which takes half a second for each.

    Its records lie where those of the default experiment do, but for the name, unless it says otherwise.
    """
    dataset: Any = base.catalog.get(RECORD)
    texts = (path.read_text("utf-8", "replace") for path in folder.rglob("*.y*ml"))
    if dataset._protocol != "file" or any(_MOVING.search(text) for text in texts):
        return True
    parts = PurePath(dataset._filepath).parts
    return Path(*(folder.name if part == base.name else part for part in parts)).exists()


def find_run(found: Sequence[Experiment], prefix: str) -> tuple[Experiment, Summary]:
    """The run whose id is, or begins with, what was typed.

    Raises:
        CommandError: where there is none, or more than one.
    """
    runs = list(_runs(found))
    chosen = [run for run in runs if run[1].run_id == prefix]
    chosen = chosen or [run for run in runs if prefix and run[1].run_id.startswith(prefix)]
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        known = [summary.run_id for _, summary in runs]
        nearest = nearest_names(prefix, known)
        remedy = f"did you mean '{nearest[0]}'?" if nearest else "see them with: kedro runs list"
        raise CommandError(f"run must be the id of a run or its beginning, got '{prefix}'; {remedy}")
    ids = [summary.run_id for _, summary in chosen]
    if len(set(ids)) == 1:
        names = [experiment.name for experiment, _ in chosen]
        raise CommandError(
            f"run must be of one experiment, got {ids[0]} of {name_some(names)}; add --env {names[-1]}"
        )
    raise CommandError(
        f"run must be the beginning of one id, got '{prefix}', with which {len(ids)} begin: "
        f"{name_some(ids)}; type more of it"
    )


def _runs(found: Sequence[Experiment]) -> Iterator[tuple[Experiment, Summary]]:
    for experiment in found:
        for summary in experiment.summaries:
            yield experiment, summary


def differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values that differ between two nested mappings, by dotted name; none for one that is absent."""
    first, second = flatten(dict(left)), flatten(dict(right))
    names = [name for name in (first | second) if first.get(name) != second.get(name)]
    return {name: (first.get(name), second.get(name)) for name in names}
