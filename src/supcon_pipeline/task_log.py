"""What a session of a run does, written down while it happens."""

import atexit
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from uuid import uuid4

from kedro.pipeline import Pipeline

from supcon_pipeline.datasets.run_record import (
    NodeEntry,
    RunRecordDataset,
    SessionStart,
    TaskEntry,
    identify_process,
)
from supcon_pipeline.interrupts import find_stop, ignoring_interrupts
from supcon_pipeline.provenance import describe_device, package_versions, typed_command
from supcon_pipeline.validation import parameter_groups

# What a session is asked for. Plugins leave out some, and have other names for some.
_SELECTION = {
    "pipeline_names": ("pipeline_names", "pipeline_name"),
    "node_names": ("node_names",),
    "tags": ("tags",),
    "namespaces": ("namespaces", "node_namespaces"),
    "from_nodes": ("from_nodes",),
    "to_nodes": ("to_nodes",),
    "from_inputs": ("from_inputs",),
    "to_outputs": ("to_outputs",),
    "load_versions": ("load_versions",),
    "only_missing_outputs": ("only_missing_outputs",),
}
# Of nodes that run in threads of this process.
_LOCK = threading.RLock()
# The logs of this process that were not closed, each with its thread.
_OPEN: dict["TaskLog", int] = {}


def outcome_of(error: Exception) -> str:
    """What an error makes of a session: also a stop may come as one, from a module that it met."""
    return "failed" if find_stop(error) is None else "interrupted"


def describe_selection(run_params: Mapping[str, Any]) -> dict[str, Any]:
    """What a session was asked for, as plain JSON, under the names of `KedroSession.run`."""
    found: dict[str, Any] = {}
    for name, aliases in _SELECTION.items():
        value = next(filter(None, map(run_params.get, aliases)), None)
        if isinstance(value, (tuple, set)):
            value = list(value)
        if value:
            found[name] = [value] if isinstance(value, str) else value
    return found


def describe_nodes(pipeline: Pipeline, kept: set[str]) -> dict[str, NodeEntry]:
    """The nodes of a pipeline before it runs; those kept are complete already."""
    return {
        node.name: NodeEntry(
            outcome="kept" if node.name in kept else "pending",
            started=None,
            seconds=None,
            parameters=parameter_groups(node),
            outputs=list(node.outputs),
        )
        for node in pipeline.nodes
    }


class TaskLog:
    """The entry of one session in the record of its run, saved whenever it changes.

    Args:
        dataset: the record, at the version of the run.
        entry: what is known before the first node.
        pipeline: what the session was asked for, with the nodes that are kept.
    """

    def __init__(self, dataset: RunRecordDataset, entry: TaskEntry, pipeline: Pipeline):
        self.dataset, self.entry, self.pipeline = dataset, entry, pipeline
        self._unsaved: dict[str, set[str]] = {}
        self._begun: dict[str, float] = {}
        self._save()
        with _LOCK:
            _OPEN[self] = threading.get_ident()

    def start_node(self, name: str) -> None:
        """A node begins to load what it needs or to compute."""
        if name in self.entry["nodes"]:
            self._unsaved[name] = set(self.entry["nodes"][name]["outputs"])
            self._begun[name] = perf_counter()
            self._change(name, outcome="running", started=_now())

    def save_output(self, name: str, output: str) -> None:
        """One of the outputs of a node was saved; with the last of them it is complete."""
        unsaved = self._unsaved.get(name, set())
        unsaved.discard(output)
        if name in self._unsaved and not unsaved:
            self._end_node(name, "completed")

    def close(self, outcome: str) -> None:
        """The session has ended; the nodes that were running have the same outcome."""
        with _LOCK:
            _OPEN.pop(self, None)
        if self.entry["outcome"] != "running":
            return
        for name in list(self._unsaved):
            self._end_node(name, outcome)
        self.entry["outcome"], self.entry["ended"] = outcome, _now()
        self._save()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Close where the block raises."""
        try:
            yield
        except Exception as error:
            self.close(outcome_of(error))
            raise

    def fail_node(self, name: str, error: Exception) -> None:
        """A node has raised an error."""
        if name in self._unsaved:
            self._end_node(name, outcome_of(error))

    def _end_node(self, name: str, outcome: str) -> None:
        del self._unsaved[name]
        self._change(name, outcome=outcome, seconds=round(perf_counter() - self._begun[name], 3))

    def _change(self, name: str, **values: Any) -> None:
        self.entry["nodes"][name] = {**self.entry["nodes"][name], **values}  # type: ignore[typeddict-item]
        self._save(name)

    def _save(self, node: str | None = None) -> None:
        """Write the entry; a worker process of the session writes of its node alone, in a file of its own."""
        with _LOCK:
            self.entry["device"], self.entry["threads"] = describe_device()
            if os.getpid() == self.entry["pid"]:
                self.dataset.save_task(self.entry)
            elif node is not None:
                own: TaskEntry = {**self.entry, "nodes": {node: self.entry["nodes"][node]}}
                self.dataset.save_task(own, part=node)


def begin_here() -> SessionStart:
    """What an entry has that begins now, in this process."""
    return SessionStart(
        task=uuid4().hex[:12],
        outcome="running",
        started=_now(),
        ended=None,
        host=socket.gethostname(),
        pid=os.getpid(),
        process=identify_process(os.getpid()),
    )


def new_entry(
    run_params: Mapping[str, Any],
    nodes: dict[str, NodeEntry],
    parameters: dict[str, Any],
    commit: str | None,
    commit_reason: str | None,
) -> TaskEntry:
    """The entry of a session that begins.

    Args:
        run_params: what Kedro tells of the session.
        nodes: from `describe_nodes`.
        parameters: of what runs, by group.
        commit: of the code, from `describe_commit`.
        commit_reason: why there is none, likewise.
    """
    device, threads = describe_device()
    return {
        **begin_here(),
        "command": typed_command(),
        "selection": describe_selection(run_params),
        "env": run_params.get("env"),
        "given": dict(run_params.get("runtime_params") or {}),
        "parameters": parameters,
        "nodes": nodes,
        "commit": commit,
        "commit_reason": commit_reason,
        "packages": package_versions(),
        "device": device,
        "threads": threads,
    }


def close_interrupted(thread: int | None = None) -> None:
    """Close the logs that this process left open, of one thread or of all."""
    for log, owner in list(_OPEN.items()):
        if log.entry["pid"] == os.getpid() and thread in (None, owner):
            log.close("interrupted")


def _now() -> str:
    return datetime.now(UTC).isoformat()


@atexit.register
def _close_at_exit() -> None:
    with ignoring_interrupts():
        close_interrupted()
