"""The record of a run: what it is based on, and what each of its sessions did."""

import json
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired, TypedDict

from kedro_datasets.json import JSONDataset

from supcon_pipeline.datasets.checked_file import CheckedFile

logger = logging.getLogger(__name__)


class NodeEntry(TypedDict):
    """What became of a node in a session.

    Args:
        outcome: `pending` (not reached), `running`, `completed` (all outputs saved), `kept` (all outputs were
            there already), `failed`, `interrupted` or `pruned`.
        started: ISO 8601 time in UTC; none where it did not run.
        seconds: how long it took, its loading and saving included; none where it has not ended.
        parameters: the groups of parameters it takes, which are keys of `TaskEntry.parameters`.
        outputs: the artifacts it makes.
    """

    outcome: str
    started: str | None
    seconds: float | None
    parameters: list[str]
    outputs: list[str]


class SessionStart(TypedDict):
    """What an entry has of the process that it begins in; see `TaskEntry`."""

    task: str
    outcome: str
    started: str
    ended: str | None
    host: str
    pid: int
    process: NotRequired[str | None]


class TaskEntry(SessionStart):
    """A session of a run: one `kedro run`, or one task of an orchestrator.

    Args:
        task: its name, which no other session has.
        outcome: `running`, `completed`, `failed`, `interrupted` (also where its process is gone) or `pruned`
            (where a search has stopped it).
        started: ISO 8601 time in UTC.
        ended: likewise; none while it runs, and for one whose process was killed.
        command: what was typed, quoted for a shell.
        selection: what the session was asked for, under the names of `KedroSession.run`: `pipeline_names`,
            `node_names`, `tags`, `namespaces`, `from_nodes`, `to_nodes`, `from_inputs`, `to_outputs`,
            `load_versions`, `only_missing_outputs`. What was not given is left out.
        env: the environment given, or none.
        given: parameters given for this session alone (`--params`), nested.
        parameters: of what runs, by group, with all defaults.
        nodes: by name, in the order they run.
        commit: of the code, `+changes` where files are modified; none where `commit_reason` says why.
        commit_reason: `not under version control`, or why git could not say.
        packages: versions by name: `python`, the own package and what it depends on.
        device: on which it computed; none where nothing computed with torch.
        threads: of torch on the CPU; none likewise.
        host: name of the machine.
        pid: of the process.
        process: tells it from later processes of that number, see `identify_process`; absent in old records.
    """

    command: str
    selection: dict[str, Any]
    env: str | None
    given: dict[str, Any]
    parameters: dict[str, Any]
    nodes: dict[str, NodeEntry]
    commit: str | None
    commit_reason: str | None
    packages: dict[str, str]
    device: str | None
    threads: int | None


class InheritedEntry(TypedDict):
    """Where some of the artifacts come from that the run did not make.

    Args:
        run_id: the run that made them.
        nodes: the nodes of that run that made them; empty for runs that did not record their nodes.
        parameters: with which they were made, by group.
    """

    run_id: str
    nodes: list[str]
    parameters: dict[str, Any]


class RunRecord(TypedDict):
    """All that is known of a run.

    Args:
        run_id: the version of its artifacts.
        number: place in the order of the runs of the experiment, from 1; absent in records of old runs, which
            come before all others.
        experiment: the environment, `base` where none was chosen.
        started: when its first session began: ISO 8601 time in UTC.
        ended: when its last session ended; none while one runs, and where none ended.
        outcome: `running`, `completed`, `failed`, `interrupted`, `pruned`, or `unknown` for old runs and
            where a session is left out. A node that failed and was run again with success leaves the run
            `completed`.
        commit: of the code at its start, see `TaskEntry`.
        commit_reason: why `commit` is none.
        base: the run it is based on, none for the first.
        base_artifacts: the artifacts of that run: version (the id of the run that made it) by name.
        inherited: of those, where they come from.
        parameters: by group: those of what ran, else those with which the inherited artifacts were made.
        tasks: its sessions, in the order they began.
        left_out: the files of those that cannot be read.
    """

    run_id: str
    number: NotRequired[int]
    experiment: str
    started: str
    ended: str | None
    outcome: str
    commit: str | None
    commit_reason: NotRequired[str | None]
    base: str | None
    base_artifacts: dict[str, str]
    inherited: list[InheritedEntry]
    parameters: dict[str, Any]
    tasks: list[TaskEntry]
    left_out: list[str]


class RunRecordDataset(CheckedFile, JSONDataset):
    """The record of a run, in one file that is written once and one beside it for each session.

    `run_record.json` holds `run_id`, `number`, `experiment`, `started`, `commit`, `commit_reason`, `base`,
    `base_artifacts` and `inherited`; `run_record.<task>.json` a `TaskEntry`. No two processes ever write the
    same file, so tasks that run at the same time lose nothing. Loading gives a `RunRecord`.
    """

    log: Any = None
    """What writes down this session, while it runs; from here it reaches the processes of a runner."""

    def load(self) -> RunRecord:
        """The record with its sessions, and what follows from them."""
        head, names = self.head(), self._task_names()
        record = complete_record(head, *self._load_tasks(names))
        # Old records hold the parameters themselves, and have no sessions.
        if not names and "parameters" not in head:
            # It was stopped before it wrote down its first session.
            record["outcome"] = "interrupted"
        return record

    def head(self) -> dict[str, Any]:
        """What was written when the run began.

        Raises:
            ArtifactError: where the file has changed since, or cannot be read.
        """
        place = self._get_load_path()
        # Nothing makes a record again.
        remedy = f"delete the run: kedro runs delete {place.parent.name}"
        head: dict[str, Any] = self._read(place, remedy)
        return head

    def create(self, record: dict[str, Any]) -> bool:
        """Write the record of a new run, unless another process has done so; whether it was this one."""
        path = self._get_versioned_path(str(self.resolve_save_version()))
        try:
            self._store.create(path, json.dumps(record, **self._save_args).encode())
        except FileExistsError:
            return False
        finally:
            self._invalidate_cache()
        return True

    def save_task(self, task: TaskEntry, part: str | None = None) -> None:
        """Write what a session did so far, in place of what was written of it before.

        Args:
            task: the session.
            part: name of a process of the session, which writes only the nodes that it ran.
        """
        record = self._get_versioned_path(str(self.resolve_save_version()))
        name = f"{record.stem}.{task['task']}{f'.{part}' if part else ''}.json"
        # Parameters given from Python may hold paths and the like.
        content = json.dumps(task, default=str, **self._save_args).encode()
        self._store.write(record.with_name(name), content)
        self._invalidate_cache()

    def mark_pruned(self) -> None:
        """Say of the last session that it was not interrupted by chance: a search has stopped it."""
        for task in self.load()["tasks"][-1:]:
            if task["outcome"] == "interrupted":
                nodes: dict[str, NodeEntry] = {
                    name: {**node, "outcome": "pruned"} if node["outcome"] == "interrupted" else node
                    for name, node in task["nodes"].items()
                }
                self.save_task({**task, "outcome": "pruned", "nodes": nodes})

    def _task_names(self) -> list[str]:
        """The files of the sessions; that of a session before those of its parts."""
        record = self._get_load_path()
        names = [name for name in self._store.names_in(record.parent) if name != record.name]
        own = [name for name in names if name.startswith(f"{record.stem}.") and name.endswith(record.suffix)]
        return sorted(own, key=lambda name: (len(name), name))

    def _load_tasks(self, names: list[str]) -> tuple[list[TaskEntry], list[str]]:
        """The sessions in these files, in the order they began, and the files that cannot be read."""
        record = self._get_load_path()
        tasks: dict[str, TaskEntry] = {}
        left_out = []
        for name in names:
            try:
                task = self._read(record.with_name(name))
                whole = tasks.setdefault(task["task"], task)
                whole["nodes"].update(task["nodes"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("%s cannot be read and is left out: %s", record.with_name(name), error)
                left_out.append(name)
        return sorted(tasks.values(), key=lambda task: task["started"]), left_out

    def _read(self, place: PurePosixPath, remedy: str = "") -> Any:
        with self._store.reading(place, remedy) as path:
            return json.loads(path.read_bytes())


def complete_record(
    record: dict[str, Any], tasks: list[TaskEntry], left_out: Sequence[str] = ()
) -> RunRecord:
    """A record as it was written, with its sessions and what follows from them.

    Args:
        record: what `run_record.json` holds.
        tasks: its sessions, in the order they began.
        left_out: the files of those that cannot be read.
    """
    tasks = [_with_its_end(task) for task in tasks]
    inherited = record.get("inherited", [])
    # Old records hold the parameters themselves.
    parameters = dict(record.get("parameters", {}))
    for entry in [*inherited, *tasks]:
        parameters.update(entry["parameters"])
    outcome = _outcome(tasks)
    # Whether a session that is left out has ended well, nobody knows.
    outcome = "unknown" if left_out and outcome != "running" else outcome
    ends = [task["ended"] for task in tasks if task["ended"] is not None]
    derived = {
        "ended": max(ends, default=None) if outcome != "running" else None,
        "outcome": outcome,
        "inherited": inherited,
        "parameters": parameters,
        "tasks": tasks,
        "left_out": list(left_out),
    }
    return {**record, **derived}  # type: ignore[typeddict-item]


def _with_its_end(task: TaskEntry) -> TaskEntry:
    """The session; as interrupted where it did not end and its process is gone."""
    is_gone = task["outcome"] == "running" and not _is_alive(task)
    outcome = "interrupted" if is_gone else task["outcome"]
    nodes: dict[str, NodeEntry] = {
        name: {**node, "outcome": outcome} if node["outcome"] == "running" else node
        for name, node in task["nodes"].items()
    }
    return {**task, "outcome": outcome, "nodes": nodes}


def _is_alive(task: TaskEntry) -> bool:
    """Whether the process of a session runs; of one on another machine that is not known, and true."""
    if task["host"] != socket.gethostname():
        return True
    try:
        os.kill(task["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A number is given to another process some day, in a container soon.
    known = task.get("process")
    return known is None or known == identify_process(task["pid"])


def identify_process(pid: int) -> str | None:
    """What no other process has that had or will have its number.

    None where it has ended, even if its parent does not know yet, and where the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        # Number and name come before; the name may hold anything. Then its state, and later when it began.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{boot}/{fields[19]}"


def _outcome(tasks: list[TaskEntry]) -> str:
    """What became of a run: of each node, its last attempt counts.

    So a session whose machine is gone, and which nobody can tell has ended, counts no more once another has
    done its work.
    """
    if not tasks:
        return "unknown"
    last: dict[str, str] = {}
    for task in tasks:
        for name, node in task["nodes"].items():
            is_pending = node["outcome"] == "pending"
            if not (is_pending and last.get(name) in ("completed", "kept")):
                last[name] = task["outcome"] if is_pending else node["outcome"]
    unfinished = ("running", "failed", "interrupted", "pruned")
    return next((outcome for outcome in unfinished if outcome in last.values()), "completed")
