"""Runs: which artifacts belong together, and reading them back as a whole."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kedro.io import AbstractVersionedDataset, DataCatalog, Version
from kedro.pipeline import Pipeline

from supcon_pipeline.commands import CommandError, run_command
from supcon_pipeline.core.messages import suggest
from supcon_pipeline.datasets.optional import OptionalArtifact

RUN_ID_VARIABLE = "SUPCON_RUN_ID"
RECORD = "run_record"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run and what it can be read for.

    Args:
        run_id: its id.
        artifacts: the version of each artifact that belongs to it: its own, and those of the run it was
            built upon as far as nothing of its own made them out of date.
    """

    run_id: str
    artifacts: dict[str, str]


class RunBook:
    """The runs of an experiment, read from the catalog.

    Args:
        catalog: of the experiment.
        graph: all pipelines, which say what depends on what.
        suggest_command: gives the command of pipelines, and other arguments of `run_command`.
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
        """The run of that id, or none."""
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

    def newest_first(self) -> Iterator[Run]:
        """All runs by the time they were started."""
        dataset = self._dataset(RECORD)
        run_ids = dataset.list_versions(full_path=False) if dataset is not None else []
        started = {run_id: self._pinned(RECORD, run_id).load()["started"] for run_id in run_ids}
        for run_id in sorted(run_ids, key=started.__getitem__, reverse=True):
            run = self.read(run_id)
            if run is not None:
                yield run

    def without_descendants(self, artifacts: dict[str, str], made: Iterable[str]) -> dict[str, str]:
        """The artifacts left valid when others are made anew: none that is made from those or beside them."""
        makers = [node.name for node in self.graph.nodes if set(node.outputs) & set(made)]
        stale = self.graph.from_nodes(*makers).all_outputs() if makers else set()
        return {name: version for name, version in artifacts.items() if name not in stale}

    def base_for(self, needed: set[str], pins: dict[str, str] | None = None) -> Run | None:
        """The newest run that has all that is needed, or else the newest that has it beside the pins.

        Args:
            needed: names of artifacts.
            pins: versions chosen by hand. A run that has them comes whole; where none has them all, they take
                the place of what another run has, and what that has made from its own is no part of it.

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
        best = max(own or views, key=lambda run: len(needed & run.artifacts.keys()), default=None)
        absent = needed - (best.artifacts.keys() if best else set())
        pinned = "".join(f" with {name} of {version}" for name, version in pins.items())
        pipelines = self.pipelines_making(absent, (best.artifacts if best else {}).keys() | pins.keys())
        raise CommandError(
            f"{', '.join(sorted(absent))} must be in a run of this experiment{pinned}, got none; "
            f"type {self.suggest_command(pipelines, load_versions=pins)} first"
        )

    def _view(self, run: Run, pins: dict[str, str]) -> Run:
        """The run with the pinned versions in place of its own, and without what is made from its own."""
        changed = {name for name, version in pins.items() if run.artifacts.get(name) != version}
        return Run(run.run_id, self.without_descendants(run.artifacts, changed) | pins)

    def require_pins(self, pins: dict[str, str]) -> None:
        """Make sure that what is chosen by hand is there.

        Raises:
            CommandError: where a name is none of an artifact, or its run has none.
        """
        for name, version in pins.items():
            if name not in self.names:
                known = suggest(name, self.names)
                raise CommandError(f"load_versions must name artifacts of runs, got '{name}'; {known}")
            if not self._pinned(name, version).exists():
                made = [run.run_id for run in self.newest_first() if run.artifacts.get(name) == run.run_id]
                known = suggest(version, made) if made else "none has been made yet"
                raise CommandError(f"load_versions must name runs that made {name}, got '{version}'; {known}")

    def _warn_of_newer(self, runs: list[Run], needed: set[str]) -> None:
        """Say why the last of the runs is read and not the first, which is newer."""
        if len(runs) > 1:
            absent = ", ".join(sorted(needed - runs[0].artifacts.keys()))
            logger.warning("Reading run %s: the newer %s has no %s", runs[-1].run_id, runs[0].run_id, absent)

    def pipelines_making(self, names: Iterable[str], present: Collection[str]) -> list[str]:
        """The pipelines that make some artifacts and all these are made from, in the order of the data.

        Args:
            names: of the artifacts.
            present: names of artifacts that need not be made.
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
        """The pipeline that makes each artifact."""
        return {name: str(node.namespace) for node in self.graph.nodes for name in node.outputs}

    def pin(self, load_versions: dict[str, str]) -> None:
        """Read these datasets at these versions from now on."""
        for name, version in load_versions.items():
            dataset = self._dataset(name)
            if dataset is not None:
                dataset._version = Version(version, dataset.resolve_save_version())
                dataset.release()

    def show(self) -> None:
        """Read one run from now on, that of `SUPCON_RUN_ID` or else the newest, and nothing of any other.

        Raises:
            CommandError: where the run asked for is not there.
        """
        run_id = os.environ.get(RUN_ID_VARIABLE)
        run = self.read(run_id) if run_id else next(self.newest_first(), None)
        if run is None and run_id:
            known = [run.run_id for run in self.newest_first()]
            remedy = suggest(run_id, known) if known else f"unset {RUN_ID_VARIABLE} until there is one"
            raise CommandError(
                f"{RUN_ID_VARIABLE} must be a run of this experiment, got '{run_id}'; {remedy}"
            )
        if run is not None:
            # What the run has not is looked for in it alone, and so is not found.
            self.pin({**dict.fromkeys([*self.names, RECORD], run.run_id), **run.artifacts})

    def save_record(self, run_id: str, record: dict[str, Any]) -> None:
        """Write the record of a new run."""
        self._pinned(RECORD, run_id).save(record)

    def _pinned(self, name: str, version: str) -> AbstractVersionedDataset[Any, Any]:
        """The dataset at a version, beside the one in the catalog."""
        dataset = self._dataset(name)
        if dataset is None:
            raise CommandError(f"{name} must be versioned in the catalog, got {self.catalog.get(name)}")
        pinned: AbstractVersionedDataset[Any, Any] = dataset._copy(_version=Version(version, version))  # type: ignore[assignment]
        return pinned


def open_run(
    book: RunBook,
    run_id: str,
    pipeline: Pipeline,
    describe: Callable[[], dict[str, Any]],
    load_versions: dict[str, str],
    is_going_on: bool = False,
) -> None:
    """Start a run, or go on with it where its id is known, and pin what its pipeline reads.

    Args:
        book: the runs of the experiment.
        run_id: of the run to open.
        pipeline: what will run.
        describe: what the record of a new run says beside its id and its base.
        load_versions: versions chosen by hand, as for `RunBook.base_for`.
        is_going_on: whether artifacts that the run has already are kept instead of refused.

    Raises:
        CommandError: where no run has what the pipeline reads, this one has what the pipeline would make, or
            a version is chosen of what it makes or what another has been chosen of before.
    """
    made = pipeline.all_outputs() & set(book.names)
    inputs = pipeline.inputs() & set(book.names)
    needed = inputs - book.optional
    book.require_pins(load_versions)
    chosen = ", ".join(sorted(made & load_versions.keys()))
    if chosen:
        raise CommandError(
            f"load_versions must be of what the run reads, got {chosen}, which it makes; "
            "choose with --pipelines what it makes"
        )
    run = book.read(run_id) or _start_run(book, run_id, needed, describe, load_versions)
    _require_artifacts(book, run, needed, load_versions)
    present = {name for name in made if run.artifacts.get(name) == run_id}
    if present and not is_going_on:
        raise CommandError(
            f"{', '.join(sorted(present))} must be new in run {run_id}, got already made; "
            f"choose another {RUN_ID_VARIABLE} or add --only-missing-outputs"
        )
    reading = {name: run.artifacts[name] for name in inputs & run.artifacts.keys()}
    for name in sorted(reading.keys() - book.without_descendants(reading, made).keys()):
        if name in book.optional:
            del reading[name]
        else:
            logger.warning("%s of run %s was made from what this run makes anew", name, reading[name])
    # What the run has not is looked for in it alone, and so is not found.
    book.pin({**dict.fromkeys([*made, *inputs, RECORD], run_id), **reading})


def _start_run(
    book: RunBook,
    run_id: str,
    needed: set[str],
    describe: Callable[[], dict[str, Any]],
    load_versions: dict[str, str],
) -> Run:
    """A new run on the base that it reads, both written down."""
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
        command = book.suggest_command(pipelines, run_id=run.run_id, is_going_on=is_begun)
        raise CommandError(
            f"{', '.join(sorted(absent))} must be in run {run.run_id}, got none; type {command} first"
        )
    for name, version in load_versions.items():
        begun = run.artifacts.get(name)
        if begun != version:
            raise CommandError(
                f"{name} of run {run.run_id} must be that of {begun}, as it has begun, got {version}; "
                f"choose another {RUN_ID_VARIABLE}"
            )
