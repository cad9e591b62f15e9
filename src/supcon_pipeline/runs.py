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

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError, find_refusal, leaves, run_command
from supcon_pipeline.core.messages import suggest
from supcon_pipeline.datasets.optional_artifact import OptionalArtifact
from supcon_pipeline.datasets.run_record import RunRecord, RunRecordDataset
from supcon_pipeline.datasets.stores import store_of

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
        dataset = self.record_dataset(run_id)
        if not dataset.exists():
            return None
        record = dataset.head()
        own = {name for name in self.names if self._pinned(name, run_id).exists()}
        inherited = self.without_descendants(record["base_artifacts"], own)
        artifacts = {
            name: version for name, version in inherited.items() if self._pinned(name, version).exists()
        }
        return Run(run_id, {**artifacts, **dict.fromkeys(own, run_id)})

    def records(self) -> list[RunRecord]:
        """The records of all runs, the newest first; one that cannot be read is named and left out."""
        return [self.record_dataset(head["run_id"]).load() for head in self.heads()]

    def heads(self) -> list[dict[str, Any]]:
        """What was written of all runs when they began, the newest first.

        The order is that in which they began. It is counted, since a clock may be set back.
        """
        dataset = self._dataset(RECORD)
        run_ids = _versions_of(dataset) if dataset is not None else []
        heads = []
        for run_id in run_ids:
            try:
                head = self.record_dataset(run_id).head()
                heads.append((head.get("number", 0), head["started"], head["run_id"], head))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning("The record of run %s cannot be read and is left out: %s", run_id, error)
        return [head for *_, head in sorted(heads, key=operator.itemgetter(0, 1, 2), reverse=True)]

    def record_dataset(self, run_id: str) -> RunRecordDataset:
        """The record of one run, which need not exist."""
        dataset = self._pinned(RECORD, run_id)
        if not isinstance(dataset, RunRecordDataset):
            name = f"{RunRecordDataset.__module__}.{RunRecordDataset.__name__}"
            raise CommandError(
                f"{RECORD} must be of type {name}, got {type(dataset).__name__}; change it in the catalog"
            )
        return dataset

    def newest_first(self) -> Iterator[Run]:
        """All runs, the last started first."""
        for head in self.heads():
            run = self.read(head["run_id"])
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
            CommandError: where there is no such run, or a newer one has newer versions of what is needed, or
                of what that is made from.
        """
        pins = pins or {}
        own: list[Run] = []
        views: list[Run] = []
        # A run that is older than the one found is not looked into: there may be thousands.
        for run in self.newest_first():
            view = self._view(run, pins)
            views.append(view)
            if pins.items() <= run.artifacts.items():
                if needed <= view.artifacts.keys():
                    self._refuse_newer(own, view, needed)
                    return view
                own.append(view)
        for position, view in enumerate(views):
            if needed <= view.artifacts.keys():
                self._refuse_newer(views[:position], view, needed)
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
            # Kedro takes an empty version for the latest.
            if not version or not self._pinned(name, version).exists():
                made = [run.run_id for run in self.newest_first() if run.artifacts.get(name) == run.run_id]
                command = self.suggest_command(self.pipelines_making([name], ()))
                remedy = suggest(version, made) if made else f"first type: {command}"
                raise CommandError(
                    f"--load-versions must name a run that made {name}, got '{version}'; {remedy}"
                )

    def _refuse_newer(self, newer: list[Run], run: Run, needed: set[str]) -> None:
        """Refuse to read a run whose artifacts a newer, incomplete one has begun to replace.

        Args:
            newer: the runs that are passed over.
            run: the one that would be read.
            needed: names of artifacts, all of which it has.
        """
        upstream = self.graph.to_outputs(*needed).all_outputs()
        for other in newer:
            made = {name for name in upstream if other.artifacts.get(name) == other.run_id}
            absent = sorted(needed - other.artifacts.keys())
            if not made:
                logger.warning(
                    "Reading run %s: the newer %s has no %s", run.run_id, other.run_id, ", ".join(absent)
                )
                continue
            newest = _most_telling(made & needed or made)
            pipelines = self.pipelines_making(absent, other.artifacts.keys())
            given = self._given(other.run_id)
            finish = self.suggest_command(pipelines, run_id=other.run_id, params=given)
            raise CommandError(
                f"{', '.join(absent)} must be in run {other.run_id}, which has a newer {newest} than run "
                f"{run.run_id}, got none; to finish that run type: {finish}; "
                f"to read run {run.run_id}, add --load-versions {newest}:{run.artifacts[newest]}"
            )

    def _given(self, run_id: str) -> dict[str, Any]:
        """The parameters that were given for the sessions of a run, without which it does not go on."""
        tasks = self.record_dataset(run_id).load()["tasks"]
        return {name: value for task in tasks for name, value in leaves(task["given"])}

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

    def save_as(self, run_id: str) -> None:
        """Save every versioned dataset as part of this run from now on, whatever the catalog was made for."""
        for name in {*self.graph.datasets(), *self.catalog.keys(), RECORD}:
            dataset = self._dataset(name)
            if dataset is not None and dataset._version is not None:
                dataset._version = Version(dataset._version.load, run_id)
                dataset.release()

    def remove(self, name: str, run_id: str) -> None:
        """Remove what a run has of an artifact, and whatever lies beside it."""
        dataset = self._pinned(name, run_id)
        store_of(dataset).remove(dataset._get_load_path().parent)
        dataset.release()

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
            self._read_alone(run)

    def join(self, run_id: str) -> None:
        """From now on read from this run alone, which may not have begun, and save what is made in it."""
        self.save_as(run_id)
        self._read_alone(self.read(run_id) or Run(run_id, {}))

    def _read_alone(self, run: Run) -> None:
        # What the run lacks is pinned to it as well, so that no other run is searched for it.
        self.pin({**dict.fromkeys([*self.names, RECORD], run.run_id), **run.artifacts})

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


def _versions_of(dataset: AbstractVersionedDataset[Any, Any]) -> list[str]:
    """The versions that a dataset has.

    Raises:
        InputError: where an object store refuses to say, which Kedro hides behind an error of its own.
    """
    try:
        versions: list[str] = dataset.list_versions(full_path=False)
        return versions
    except DatasetError as error:
        refusal = find_refusal(error)
        if refusal is None:
            raise
    raise refusal


def _most_telling(names: set[str]) -> str:
    """Of some artifacts, the one by which people know a run."""
    return min(names, key=lambda name: (name != "encoder", name != "classifier", name))
