"""Runs: one id for all artifacts of a session, and reading back whole runs."""

import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click
from kedro.framework.session import KedroSession
from kedro.io import AbstractVersionedDataset, CatalogProtocol, Version
from kedro.pipeline import Pipeline

RUN_ID_VARIABLE = "SUPCON_RUN_ID"
RECORD = "run_record"

logger = logging.getLogger(__name__)


class RunError(click.ClickException):
    """A run that cannot be started or read; shown as one line."""


class RunSession(KedroSession):
    """A Kedro session whose id, and so the version of all it saves, comes from `SUPCON_RUN_ID` where that is set."""

    def __init__(self, session_id: str, **arguments: Any):
        run_id = os.environ.get(RUN_ID_VARIABLE) or session_id
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run_id):
            raise RunError(
                f"{RUN_ID_VARIABLE} must be letters, digits, '.', '_' and '-', got {run_id!r}; choose another"
            )
        super().__init__(session_id=run_id, **arguments)


@dataclass(frozen=True)
class Run:
    """A run and what it can be read for.

    Args:
        run_id: its id.
        started: when, as text that sorts.
        artifacts: the version of each artifact that belongs to it: its own, and those of the run it was
            built upon as far as nothing of its own made them out of date.
    """

    run_id: str
    started: str
    artifacts: dict[str, str]


class RunBook:
    """The runs of an experiment, read from the catalog.

    Args:
        catalog: of the experiment.
        graph: all pipelines, which say what depends on what.
    """

    def __init__(self, catalog: CatalogProtocol, graph: Pipeline):
        self.catalog, self.graph = catalog, graph
        self.names = sorted(name for name in graph.all_outputs() if self._dataset(name) is not None)

    def _dataset(self, name: str) -> AbstractVersionedDataset[Any, Any] | None:
        dataset = self.catalog.get(name)
        is_versioned = isinstance(dataset, AbstractVersionedDataset) and dataset._version is not None
        return dataset if is_versioned else None

    def read(self, run_id: str) -> Run | None:
        """The run of that id, or none."""
        dataset = self._pinned(RECORD, run_id)
        if not dataset.exists():
            return None
        record = dataset.load()
        own = {name for name in self.names if self._pinned(name, run_id).exists()}
        artifacts = self.without_descendants(record["base_artifacts"], own)
        return Run(run_id, record["started"], {**artifacts, **dict.fromkeys(own, run_id)})

    def newest_first(self) -> list[Run]:
        """All runs by the time they were started."""
        dataset = self._dataset(RECORD)
        run_ids = dataset.list_versions(full_path=False) if dataset is not None else []
        runs = [run for run_id in run_ids if (run := self.read(run_id)) is not None]
        return sorted(runs, key=lambda run: run.started, reverse=True)

    def without_descendants(self, artifacts: dict[str, str], made: Iterable[str]) -> dict[str, str]:
        """The artifacts that the making of others leaves valid: none that is made from them or beside them."""
        makers = [node.name for node in self.graph.nodes if set(node.outputs) & set(made)]
        stale = self.graph.from_nodes(*makers).all_outputs() if makers else set()
        return {name: version for name, version in artifacts.items() if name not in stale}

    def base_for(self, needed: set[str]) -> Run | None:
        """The newest run that has all that is needed.

        Raises:
            RunError: where none has.
        """
        runs = self.newest_first()
        for run in runs:
            if needed <= run.artifacts.keys():
                if run is not runs[0]:
                    missing = ", ".join(sorted(needed - runs[0].artifacts.keys()))
                    logger.warning(
                        "Reading run %s: the newest run %s has no %s that fits", run.run_id, runs[0].run_id, missing
                    )
                return run
        if needed:
            best = max(runs, key=lambda run: len(needed & run.artifacts.keys()), default=None)
            missing = needed - (best.artifacts.keys() if best else set())
            raise RunError(
                f"{', '.join(sorted(missing))} must be in a run of this experiment, got none; "
                f"run {self._pipelines_making(missing)} first"
            )
        return None

    def _pipelines_making(self, names: set[str]) -> str:
        makers = [node for node in self.graph.nodes if set(node.outputs) & names]
        return ", ".join(dict.fromkeys(node.namespace or node.name for node in makers))

    def pin(self, load_versions: dict[str, str]) -> None:
        """Read these datasets at these versions from now on."""
        for name, version in load_versions.items():
            dataset = self._dataset(name)
            if dataset is not None:
                dataset._version = Version(version, dataset._version.save)
                dataset.release()

    def _pinned(self, name: str, version: str) -> AbstractVersionedDataset[Any, Any]:
        """The dataset at a version, beside the one in the catalog."""
        dataset = self._dataset(name)
        if dataset is None:
            raise RunError(f"{name} must be versioned in the catalog, got {self.catalog.get(name)}")
        return dataset._copy(_version=Version(version, version))


def open_run(
    book: RunBook, run_id: str, pipeline: Pipeline, describe: Callable[[], dict[str, Any]]
) -> Run:
    """Start a run, or go on with it where its id is known, and pin what its pipeline reads.

    Args:
        book: the runs of the experiment.
        run_id: of the run to open.
        pipeline: what will run.
        describe: what the record of a new run says beside its id and its base.

    Raises:
        RunError: where no run has what the pipeline reads.
    """
    needed = pipeline.inputs() & set(book.names)
    run = book.read(run_id)
    if run is None:
        base = book.base_for(needed)
        record = {
            **describe(),
            "run_id": run_id,
            "base": base.run_id if base else None,
            "base_artifacts": base.artifacts if base else {},
        }
        book._pinned(RECORD, run_id).save(record)
        run = Run(run_id, record["started"], record["base_artifacts"])
    missing = needed - run.artifacts.keys()
    if missing:
        raise RunError(
            f"{', '.join(sorted(missing))} must be in run {run_id}, got none; "
            f"run {book._pipelines_making(missing)} in it first"
        )
    book.pin({name: run.artifacts[name] for name in needed})
    book.pin(dict.fromkeys([*(pipeline.all_outputs() & set(book.names)), RECORD], run_id))
    return run
