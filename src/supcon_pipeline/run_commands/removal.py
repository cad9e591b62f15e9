"""Removing runs, and what killed ones have left behind."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.atomic import BROKEN
from supcon_pipeline.core.messages import name_some
from supcon_pipeline.datasets.disk import Disk
from supcon_pipeline.datasets.object_store import ObjectStore
from supcon_pipeline.datasets.progress import ProgressDataset
from supcon_pipeline.datasets.stores import Store, open_store, store_of
from supcon_pipeline.run_commands.books import Experiment, Summary, find_run
from supcon_pipeline.runs import RECORD

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


class Leftover(NamedTuple):
    """Something that no run needs.

    Args:
        path: the file or folder.
        size: in bytes.
        reason: why it is not needed; or why it is kept.
        is_kept: whether it stays.
    """

    path: str
    size: int
    reason: str
    is_kept: bool = False


def choose_run(found: Sequence[Experiment], prefix: str, is_forced: bool) -> tuple[Experiment, str]:
    """The run to delete, by its id or its beginning; where its record cannot be read, by the whole id.

    Args:
        found: the experiments that it may be of.
        prefix: what was typed.
        is_forced: whether it may be running, or be read by other runs.

    Raises:
        CommandError: where there is no such run, or it is one of these and that is not forced.
    """
    experiment = next((one for one in found if prefix in one.unreadable), None)
    run_id = prefix
    if experiment is None:
        experiment, run = find_run(found, prefix)
        run_id = run.run_id
        if run.record["outcome"] == "running" and not is_forced:
            raise CommandError(
                f"run must have ended, got {run_id}, which is running; wait for it, or add --force"
            )
    if not is_forced:
        _require_unread(experiment, run_id)
    return experiment, run_id


def _require_unread(experiment: Experiment, run_id: str) -> None:
    """Refuse to delete a run whose artifacts other runs read, or may read."""
    others = [run for run in experiment.summaries if run.run_id != run_id]
    needing = [other.run_id for other in others if run_id in _versions_of(experiment, other)]
    if needing:
        raise CommandError(
            f"run must not be one that others are based on, got {run_id}, from which "
            f"{name_some(needing)} read; delete what is based on it first, or add --force"
        )
    unclear = sorted(experiment.unreadable - {run_id})
    if unclear:
        raise CommandError(
            f"run must not be one that others may be based on, got {run_id}, while the record of "
            f"{name_some(unclear)} cannot be read; restore or delete that first, or add --force"
        )


def _versions_of(experiment: Experiment, run: Summary) -> set[str]:
    """The runs whose artifacts a run has."""
    read = experiment.book.read(run.run_id)
    return set(read.artifacts.values()) if read else set()


def delete(experiment: Experiment, run_id: str) -> None:
    """Remove everything that a run has made; its record last, so that half a deletion is seen."""
    for name in [*_versioned_names(experiment), RECORD]:
        store, folder = _folder(experiment, name)
        store.remove(folder / run_id)


def size_of(experiment: Experiment, run_id: str) -> int:
    """How many bytes a run has made."""
    folders = [_folder(experiment, name) for name in [*_versioned_names(experiment), RECORD]]
    return sum(store.size_of(folder / run_id) for store, folder in folders)


def _versioned_names(experiment: Experiment) -> list[str]:
    """All artifacts, and the logs of trainings, which are inputs of their nodes."""
    book = experiment.book
    logs = [name for name in _inputs(experiment) if _entry(experiment, name).get("versioned")]
    return sorted({*book.names, *logs} - {RECORD})


def _inputs(experiment: Experiment) -> list[str]:
    names = experiment.book.graph.inputs()
    return sorted(name for name in names if not name.startswith("params:") and name in experiment.catalog)


def _entry(experiment: Experiment, name: str) -> dict[str, Any]:
    """What the catalog says of a dataset, which is not built."""
    entry: dict[str, Any] = experiment.catalog.config_resolver.resolve_pattern(name)
    return entry


def _folder(experiment: Experiment, name: str) -> tuple[Store, PurePosixPath]:
    """Where the versions of a dataset are."""
    dataset: Any = experiment.catalog.get(name)
    return store_of(dataset), PurePosixPath(dataset._filepath)


def leftovers(experiment: Experiment) -> Iterator[Leftover]:
    """What no run needs: abandoned progress, half-written and damaged files, artifacts without a run.

    Nothing of an experiment in which something runs.
    """
    running = [run.run_id for run in experiment.summaries if run.record["outcome"] == "running"]
    if running:
        reason = f"run {name_some(running)} is running"
        yield Leftover(f"experiment {experiment.name}", 0, reason, is_kept=True)
        return
    yield from _progress(experiment)
    yield from _half_written(experiment)
    yield from _without_run(experiment)


def _progress(experiment: Experiment) -> Iterator[Leftover]:
    """The progress of trainings; the newest run that trained this stage needs its own, if it was stopped."""
    for name in _inputs(experiment):
        if not str(_entry(experiment, name).get("type")).endswith(ProgressDataset.__name__):
            continue
        trainer = next(node.name for node in experiment.book.graph.nodes if name in node.inputs)
        stopped = _stopped_run(experiment, trainer)
        since = datetime.fromisoformat(stopped.record["started"]).timestamp() if stopped else None
        for folder in sorted(path for path in Path(_folder(experiment, name)[1]).glob("*") if path.is_dir()):
            size = Disk().size_of(folder)
            changed = max([folder.stat().st_mtime, *(path.stat().st_mtime for path in folder.iterdir())])
            if stopped and since is not None and changed >= since:
                reason = f"run {stopped.run_id} was stopped and can go on from it; finish or delete that run"
                yield Leftover(str(folder), size, reason, is_kept=True)
            elif experiment.unreadable:
                names = name_some(sorted(experiment.unreadable))
                reason = (
                    f"run {names}, whose record cannot be read, may go on from it; restore or delete that"
                )
                yield Leftover(str(folder), size, reason, is_kept=True)
            else:
                yield Leftover(str(folder), size, "progress of a training that was given up")


def _stopped_run(experiment: Experiment, node_name: str) -> Summary | None:
    """The newest run in which a node ran, if that did not end well, or may not have."""
    for run in experiment.summaries:
        if run.record["left_out"]:
            return run
        entries = [task["nodes"][node_name] for task in run.record["tasks"] if node_name in task["nodes"]]
        attempts = [entry["outcome"] for entry in entries if entry["outcome"] not in ("pending", "kept")]
        if attempts:
            return run if attempts[-1] in ("failed", "interrupted") else None
    return None


def _half_written(experiment: Experiment) -> Iterator[Leftover]:
    """Temporary files of processes that were killed, and what was set aside as damaged."""
    places = [_folder(experiment, name) for name in [*_versioned_names(experiment), RECORD]]
    # In an object store, what is not whole is not there.
    folders = {Path(place).parent for store, place in places if not isinstance(store, ObjectStore)}
    outermost = [folder for folder in sorted(folders) if not folders & set(folder.parents)]
    for folder in outermost:
        for path in sorted(folder.rglob(".*.tmp")):
            if _TEMPORARY.fullmatch(path.name):
                yield Leftover(str(path), Disk().size_of(path), "half-written")
        for path in sorted(folder.rglob(f"*{BROKEN}")):
            yield Leftover(str(path), Disk().size_of(path), "damaged, and set aside")


def _without_run(experiment: Experiment) -> Iterator[Leftover]:
    """Versions of artifacts whose run has no record, and which no other run reads."""
    book = experiment.book
    store, records = _folder(experiment, RECORD)
    run_ids = store.names_in(records) if store.is_folder(records) else []
    known = {run_id for run_id in run_ids if book._pinned(RECORD, run_id).exists()}
    known |= {version for run in experiment.summaries for version in run.record["base_artifacts"].values()}
    for name in [*_versioned_names(experiment), RECORD]:
        store, folder = _folder(experiment, name)
        for run_id in store.names_in(folder) if store.is_folder(folder) else []:
            path = folder / run_id
            if run_id not in known and not _TEMPORARY.fullmatch(run_id) and store.is_folder(path):
                reason = f"{name} of {run_id}, which is no run"
                yield Leftover(store.address(path), store.size_of(path), reason)


def remove(leftover: Leftover) -> None:
    """Remove a file or folder."""
    store, path = open_store(leftover.path)
    store.remove(path)
