"""Runs: which artifacts belong together, and reading them back as a whole."""

import logging
import operator
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kedro.io import AbstractVersionedDataset, DataCatalog, DatasetError, Version
from kedro.pipeline import Pipeline

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError, run_command
from supcon_pipeline.core.messages import suggest
from supcon_pipeline.datasets.optional import OptionalArtifact
from supcon_pipeline.datasets.run_record import RunRecord

RECORD = "run_record"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run and the artifacts that can be read from it.

    Args:
        run_id: its id.
        artifacts: version by name: its own artifacts, and those of the run it was based on that its own ones
            do not make out of date.
    """

    run_id: str
    artifacts: dict[str, str]


class RunBook:
    """The runs of an experiment, read from the catalog.

    Args:
        catalog: of the experiment.
        graph: all pipelines as one; it says which artifact is made from which.
        suggest_command: `run_command` with the environment and parameters of the current run.
    """

    def __init__(
        self, catalog: DataCatalog, graph: Pipeline, suggest_command: Callable[..., str] = run_command
    ):
        self.catalog, self.graph, self.suggest_command = catalog, graph, suggest_command
        self.names = sorted(name for name in graph.all_outputs() if self._dataset(name) is not None)
        self.optional = {name for name in self.names if isinstance(catalog.get(name), OptionalArtifact)}

    def _dataset(self, name: str) -> AbstractVersionedDataset[Any, Any] | None:
        dataset = self.catalog.get(name)
        if isinstance(dataset, AbstractVersionedDataset) and dataset._version is not None:
            return dataset
        return None

    def read(self, run_id: str) -> Run | None:
        """The run with that id, or none."""
        dataset = self._pinned(RECORD, run_id)
        if not dataset.exists():
            return None
        record = dataset.load()
        own = {name for name in self.names if self._pinned(name, run_id).exists()}
        inherited = self.without_descendants(record["base_artifacts"], own)
        artifacts = {
            name: version for name, version in inherited.items() if self._pinned(name, version).exists()
        }
        return Run(run_id, {**artifacts, **dict.fromkeys(own, run_id)})

    def records(self) -> list[RunRecord]:
        """The records of all runs, the newest first; one that cannot be read is named and left out.

        The order is that in which the runs began. It is counted, since a clock may be set back.
        """
        dataset = self._dataset(RECORD)
        run_ids = dataset.list_versions(full_path=False) if dataset is not None else []
        records = []
        for run_id in run_ids:
            try:
                records.append(self._pinned(RECORD, run_id).load())
            except (DatasetError, ValueError, KeyError, TypeError) as error:
                logger.warning("The record of run %s cannot be read and is left out: %s", run_id, error)
        order = operator.itemgetter("started", "run_id")
        return sorted(records, key=lambda record: (record.get("number", 0), *order(record)), reverse=True)

    def newest_first(self) -> Iterator[Run]:
        """All runs, the last started first."""
        for record in self.records():
            run = self.read(record["run_id"])
            if run is not None:
                yield run

    def without_descendants(self, artifacts: dict[str, str], made: Iterable[str]) -> dict[str, str]:
        """The artifacts that stay valid when others are made again.

        Those are out of date that are made from the new ones, or by the same nodes as them.
        """
        makers = [node.name for node in self.graph.nodes if set(node.outputs) & set(made)]
        stale = self.graph.from_nodes(*makers).all_outputs() if makers else set()
        return {name: version for name, version in artifacts.items() if name not in stale}

    def base_for(self, needed: set[str], pins: dict[str, str] | None = None) -> Run | None:
        """The newest run that has every artifact needed.

        Args:
            needed: names of artifacts.
            pins: versions chosen by hand. Runs that have all of these come first. If none of them has every
                artifact needed, the pins replace the versions of another run, and whatever that run made from
                the replaced ones is left out.

        Raises:
            CommandError: where there is no such run.
        """
        pins, runs = pins or {}, list(self.newest_first())
        views = [self._view(run, pins) for run in runs]
        own = [view for run, view in zip(runs, views, strict=True) if pins.items() <= run.artifacts.items()]
        for candidates in (own, views):
            for position, view in enumerate(candidates):
                if needed <= view.artifacts.keys():
                    self._warn_of_newer(candidates[: position + 1], needed)
                    return view
        if not needed:
            return None
        # The run that lacks least; without any run, everything but the pins has to be made.
        base = min(own or views or [Run("", pins)], key=lambda view: len(self._pipelines_for(needed, view)))
        absent = ", ".join(sorted(needed - base.artifacts.keys()))
        pinned = "".join(f" with {name} of run {version}" for name, version in pins.items())
        command = self.suggest_command(self._pipelines_for(needed, base), load_versions=pins)
        raise CommandError(
            f"{absent} must be in a run of this experiment{pinned}, got none; first type: {command}"
        )

    def _pipelines_for(self, needed: set[str], run: Run) -> list[str]:
        """The pipelines that make what a run lacks."""
        return self.pipelines_making(needed - run.artifacts.keys(), run.artifacts.keys())

    def _view(self, run: Run, pins: dict[str, str]) -> Run:
        """The run with the pins in place of its own versions, and without what it made from those."""
        changed = {name for name, version in pins.items() if run.artifacts.get(name) != version}
        return Run(run.run_id, self.without_descendants(run.artifacts, changed) | pins)

    def require_pins(self, pins: dict[str, str]) -> None:
        """Make sure that the versions chosen by hand exist.

        Raises:
            CommandError: where a name is not an artifact, or no run has made that version of it.
        """
        for name, version in pins.items():
            if name not in self.names:
                remedy = suggest(name, self.names)
                raise CommandError(f"--load-versions must name artifacts of runs, got '{name}'; {remedy}")
            if not self._pinned(name, version).exists():
                made = [run.run_id for run in self.newest_first() if run.artifacts.get(name) == run.run_id]
                command = self.suggest_command(self.pipelines_making([name], ()))
                remedy = suggest(version, made) if made else f"first type: {command}"
                raise CommandError(
                    f"--load-versions must name a run that made {name}, got '{version}'; {remedy}"
                )

    def _warn_of_newer(self, runs: list[Run], needed: set[str]) -> None:
        """Say why the last of these runs is read although the first is newer."""
        if len(runs) > 1:
            absent = ", ".join(sorted(needed - runs[0].artifacts.keys()))
            logger.warning("Reading run %s: the newer %s has no %s", runs[-1].run_id, runs[0].run_id, absent)

    def pipelines_making(self, names: Iterable[str], present: Collection[str]) -> list[str]:
        """The pipelines that make some artifacts and everything upstream, in the order they must run.

        Args:
            names: of the artifacts.
            present: artifacts that are there already.
        """
        found: dict[str, None] = {}

        def visit(name: str) -> None:
            pipeline = self._makers.get(name)
            if pipeline is None or pipeline in found:
                return
            inputs = self.graph.only_nodes_with_namespaces([pipeline]).inputs()
            for needed in sorted(inputs & set(self.names) - self.optional - set(present)):
                visit(needed)
            found[pipeline] = None

        for name in sorted(names):
            visit(name)
        return list(found)

    @cached_property
    def _makers(self) -> dict[str, str]:
        """The name of the pipeline that makes each artifact."""
        return {name: str(node.namespace) for node in self.graph.nodes for name in node.outputs}

    def pin(self, load_versions: dict[str, str]) -> None:
        """Read these datasets at these versions from now on."""
        for name, version in load_versions.items():
            dataset = self._dataset(name)
            if dataset is not None:
                dataset._version = Version(version, dataset.resolve_save_version())
                dataset.release()

    def show(self) -> None:
        """From now on read from one run alone: that of `SUPCON_RUN_ID`, or else the newest.

        Raises:
            CommandError: where `SUPCON_RUN_ID` names no run.
        """
        run_id = os.environ.get(RUN_ID_VARIABLE)
        run = self.read(run_id) if run_id else next(self.newest_first(), None)
        if run is None and run_id:
            known = [run.run_id for run in self.newest_first()]
            remedy = suggest(run_id, known) if known else f"type: unset {RUN_ID_VARIABLE}"
            raise CommandError(
                f"{RUN_ID_VARIABLE} must be a run of this experiment, got '{run_id}'; {remedy}"
            )
        if run is not None:
            # What the run lacks is pinned to it as well, so that no other run is searched for it.
            self.pin({**dict.fromkeys([*self.names, RECORD], run.run_id), **run.artifacts})

    def save_record(self, run_id: str, record: dict[str, Any]) -> None:
        """Write the record of a new run."""
        self._pinned(RECORD, run_id).save(record)

    def _pinned(self, name: str, version: str) -> AbstractVersionedDataset[Any, Any]:
        """A copy of the catalog's dataset at a version."""
        dataset = self._dataset(name)
        if dataset is None:
            raise CommandError(
                f"{name} must be versioned, got {self.catalog.get(name)}; "
                "add `versioned: true` to its entry in the catalog"
            )
        pinned: AbstractVersionedDataset[Any, Any] = dataset._copy(_version=Version(version, version))  # type: ignore[assignment]
        return pinned


def open_run(
    book: RunBook,
    run_id: str,
    pipeline: Pipeline,
    describe: Callable[[], dict[str, Any]],
    load_versions: dict[str, str],
    is_resumed: bool = False,
) -> None:
    """Start a run, or continue it where its id exists, and pin what its pipeline reads.

    Args:
        book: the runs of the experiment.
        run_id: id of the run to open.
        pipeline: what will run.
        describe: gives what the record of a new run holds beside its id and its base.
        load_versions: versions chosen by hand, the pins of `RunBook.base_for`.
        is_resumed: keep artifacts that the run already has, which are otherwise refused.

    Raises:
        CommandError: where an input is in no run, an output is already in this one, or a version is chosen
            for an output, or differs from the one that the run began with.
    """
    made = pipeline.all_outputs() & set(book.names)
    inputs = pipeline.inputs() & set(book.names)
    needed = inputs - book.optional
    book.require_pins(load_versions)
    _refuse_pins_of_outputs(book, pipeline, load_versions)
    run = book.read(run_id) or _start_run(book, run_id, needed, describe, load_versions)
    _require_artifacts(book, run, needed, load_versions)
    present = {name for name in made if run.artifacts.get(name) == run_id}
    if present and not is_resumed:
        raise CommandError(
            f"{', '.join(sorted(present))} must be new in run {run_id}, got already made; "
            f"choose another {RUN_ID_VARIABLE} or add --only-missing-outputs"
        )
    reading = {name: run.artifacts[name] for name in inputs & run.artifacts.keys()}
    for name in sorted(reading.keys() - book.without_descendants(reading, made).keys()):
        if name in book.optional:
            del reading[name]
        else:
            logger.warning("%s of run %s was made from artifacts that this run replaces", name, reading[name])
    # What the run lacks is pinned to it as well, so that no other run is searched for it.
    book.pin({**dict.fromkeys([*made, *inputs, RECORD], run_id), **reading})


def _refuse_pins_of_outputs(book: RunBook, pipeline: Pipeline, pins: dict[str, str]) -> None:
    """Refuse versions of what the pipeline makes; the pipelines that only read them may still run."""
    chosen = sorted(pipeline.all_outputs() & pins.keys())
    if chosen:
        makers = {node.namespace for node in pipeline.nodes if set(node.outputs) & pins.keys()}
        readers = dict.fromkeys(str(node.namespace) for node in pipeline.from_inputs(*chosen).nodes)
        others = [name for name in readers if name not in makers]
        remedy = f"type: {book.suggest_command(others, load_versions=pins)}" if others else "leave them out"
        raise CommandError(
            f"--load-versions must be of what the run reads, got {', '.join(chosen)}, which it makes; "
            f"{remedy}"
        )


def _start_run(
    book: RunBook,
    run_id: str,
    needed: set[str],
    describe: Callable[[], dict[str, Any]],
    load_versions: dict[str, str],
) -> Run:
    """A new run and its record, which names the run it is based on."""
    base = book.base_for(needed, load_versions)
    artifacts = base.artifacts if base else {}
    origin = {"run_id": run_id, "base": base.run_id if base else None, "base_artifacts": artifacts}
    book.save_record(run_id, {**describe(), **origin})
    return Run(run_id, artifacts)


def _require_artifacts(book: RunBook, run: Run, needed: set[str], load_versions: dict[str, str]) -> None:
    absent = needed - run.artifacts.keys()
    if absent:
        pipelines = book.pipelines_making(absent, run.artifacts.keys())
        made = book.graph.only_nodes_with_namespaces(pipelines).all_outputs()
        is_begun = any(run.artifacts.get(name) == run.run_id for name in made)
        command = book.suggest_command(pipelines, run_id=run.run_id, is_resumed=is_begun)
        raise CommandError(
            f"{', '.join(sorted(absent))} must be in run {run.run_id}, got none; first type: {command}"
        )
    for name, version in load_versions.items():
        first = run.artifacts.get(name)
        if first != version:
            raise CommandError(
                f"{name} of run {run.run_id} must be that of {first or 'no run'}, with which it began, "
                f"got {version}; choose another {RUN_ID_VARIABLE}"
            )
