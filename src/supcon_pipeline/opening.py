"""Opening a run: what it is based on, what it reads, and what of it is there already."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError, leaves
from supcon_pipeline.datasets.run_record import InheritedEntry, RunRecord
from supcon_pipeline.run_ids import given_run_id, is_generated, way_to_another_run
from supcon_pipeline.runs import RECORD, Run, RunBook
from supcon_pipeline.validation import parameter_groups

logger = logging.getLogger(__name__)
# Parameters that are there for the speed. With fewer workers a run goes on that lacked memory.
OF_SPEED = ("num_workers", "processes", "progress_minutes")


def open_run(
    book: RunBook,
    run_id: str,
    pipeline: Pipeline,
    describe: Callable[[], dict[str, Any]],
    parameters: Mapping[str, Any],
    load_versions: dict[str, str],
) -> set[str]:
    """Start a run, or continue it where its id exists, and pin what its pipeline reads and saves.

    A node is kept, and need not run, where the run has all its outputs and those of the nodes before it. Of a
    node that was stopped between two of its outputs, and of those that depend on it, nothing is left.

    Args:
        book: the runs of the experiment.
        run_id: id of the run to open.
        pipeline: what will run.
        describe: gives what the record of a new run holds beside its id, its place and its base.
        parameters: of what will run, by group.
        load_versions: versions chosen by hand, the pins of `RunBook.base_for`.

    Returns:
        Names of the nodes that are kept.

    Raises:
        CommandError: where an input is in no run, an output was made with other parameters, or a version is
            chosen for an output, or differs from the one that the run began with.
    """
    made = pipeline.all_outputs() & set(book.names)
    inputs = pipeline.inputs() & set(book.names)
    needed = inputs - book.optional
    book.save_as(run_id)
    book.require_pins(load_versions)
    _refuse_pins_of_outputs(book, pipeline, load_versions)
    run = book.read(run_id) or _start_run(book, run_id, needed, describe, load_versions)
    _require_artifacts(book, run, needed, load_versions)
    kept = _keep_complete(book, run, pipeline, parameters)
    reading = {name: run.artifacts[name] for name in inputs & run.artifacts.keys()}
    for name in sorted(reading.keys() - book.without_descendants(reading, made).keys()):
        if name in book.optional:
            del reading[name]
        else:
            logger.warning("%s of run %s was made from artifacts that this run replaces", name, reading[name])
    # What the run lacks is pinned to it as well, so that no other run is searched for it.
    book.pin({**dict.fromkeys([*made, *inputs, RECORD], run_id), **reading})
    return kept


def require_run_to_continue(book: RunBook, run_id: str) -> None:
    """Make sure that `--only-missing-outputs` is of a run that may have outputs; a new one lacks all.

    Raises:
        CommandError: where nobody chose the id of the run, and there are runs to continue.
    """
    newest = next(iter(book.heads()), None)
    if newest is not None and is_generated(run_id) and given_run_id() is None and not book.read(run_id):
        raise CommandError(
            f"--only-missing-outputs must be of a run that was begun, got the new run {run_id}, which would "
            f"make everything anew; put {RUN_ID_VARIABLE}={newest['run_id']} before the command to continue "
            "the newest run, or leave the option out"
        )


def leave_out(pipeline: Pipeline, kept: set[str], run_id: str) -> None:
    """Take nodes out of a pipeline that is about to run, and say so.

    Kedro has no way to do this from a hook, and a hook is all that every kind of session calls. The pipeline
    was made for this run alone.
    """
    if not kept:
        return
    rest = Pipeline([node for node in pipeline.nodes if node.name not in kept])
    if rest.nodes:
        logger.warning(
            "Run %s goes on: %d of %d nodes are done, which leaves %s",
            run_id,
            len(kept),
            len(pipeline.nodes),
            ", ".join(node.name for node in rest.nodes),
        )
    else:
        logger.warning(
            "Nothing to run: run %s has all of this already; %s to make it again",
            run_id,
            way_to_another_run(),
        )
    vars(pipeline).clear()
    vars(pipeline).update(vars(rest))


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
    """A new run and its record; or the run that another process has started meanwhile under the same id."""
    base = book.base_for(needed, load_versions)
    artifacts = base.artifacts if base else {}
    origin = {
        "run_id": run_id,
        "number": max((head.get("number", 0) for head in book.heads()), default=0) + 1,
        "started": datetime.now(UTC).isoformat(),
        "base": base.run_id if base else None,
        "base_artifacts": artifacts,
        "inherited": _inherited(book, artifacts),
    }
    if book.record_dataset(run_id).create({**origin, **describe()}):
        return Run(run_id, artifacts)
    return book.read(run_id) or Run(run_id, artifacts)


def _inherited(book: RunBook, artifacts: Mapping[str, str]) -> list[InheritedEntry]:
    """With which parameters artifacts were made, by the session that made them; the oldest first."""
    entries = []
    run_ids = [head["run_id"] for head in reversed(book.heads()) if head["run_id"] in artifacts.values()]
    for record in (book.record_dataset(run_id).load() for run_id in run_ids):
        names = {name for name, version in artifacts.items() if version == record["run_id"]}
        makers = {node.name: node for node in book.graph.nodes if names & set(node.outputs)}
        if makers and not record["tasks"]:
            # Old records hold the parameters of everything, whether it ran or not.
            groups = {group for node in makers.values() for group in parameter_groups(node)}
            entries.append(_excerpt(record["run_id"], [], record["parameters"], groups))
        for task in record["tasks"]:
            nodes = [
                name
                for name, node in task["nodes"].items()
                if names & set(node["outputs"]) and node["outcome"] not in ("kept", "pending")
            ]
            if nodes:
                groups = {group for name in nodes for group in task["nodes"][name]["parameters"]}
                entries.append(_excerpt(record["run_id"], nodes, task["parameters"], groups))
    return entries


def _excerpt(
    run_id: str, nodes: list[str], parameters: Mapping[str, Any], groups: set[str]
) -> InheritedEntry:
    chosen = {group: parameters[group] for group in sorted(groups) if group in parameters}
    return InheritedEntry(run_id=run_id, nodes=nodes, parameters=chosen)


def _keep_complete(book: RunBook, run: Run, pipeline: Pipeline, parameters: Mapping[str, Any]) -> set[str]:
    """The nodes that need not run again; the outputs of the others are removed from the run."""
    present = {name for name in pipeline.all_outputs() if run.artifacts.get(name) == run.run_id}
    if not present:
        return set()
    incomplete = [node.name for node in pipeline.nodes if not present >= set(node.outputs) & set(book.names)]
    again = pipeline.from_nodes(*incomplete) if incomplete else Pipeline([])
    kept = pipeline - again
    record = book.record_dataset(run.run_id).load()
    for node in kept.nodes:
        _require_same_parameters(record, node, parameters)
    for name in sorted(again.all_outputs() & present):
        logger.warning("Making %s of run %s again: its node was stopped before it was done", name, run.run_id)
        book.remove(name, run.run_id)
    return {node.name for node in kept.nodes}


def _require_same_parameters(record: RunRecord, node: Node, parameters: Mapping[str, Any]) -> None:
    """Refuse to keep what was made with other parameters than are given now."""
    before = record["parameters"]
    maker = next((task for task in record["tasks"] if node.name in task["nodes"]), None)
    if record["left_out"] and maker is None:
        made, unreadable = ", ".join(node.outputs), ", ".join(record["left_out"])
        raise CommandError(
            f"the session of run {record['run_id']} that made {made} must be readable, got {unreadable} that "
            f"is not; restore it from a copy, or {way_to_another_run()}"
        )
    for task in record["tasks"]:
        if node.name in task["nodes"] and task["nodes"][node.name]["outcome"] not in ("kept", "pending"):
            before = task["parameters"]
    groups = [group for group in parameter_groups(node) if group in {*before, *parameters}]
    old, new = (
        dict(leaves({group: given.get(group, {}) for group in groups})) for given in (before, parameters)
    )
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path) and path.rpartition(".")[2] not in OF_SPEED:
            raise CommandError(
                f"{path} must be {old.get(path)!r}, with which run {record['run_id']} made "
                f"{', '.join(node.outputs)}, got {new.get(path)!r}; {way_to_another_run()}"
            )


def _require_artifacts(book: RunBook, run: Run, needed: set[str], load_versions: dict[str, str]) -> None:
    absent = needed - run.artifacts.keys()
    if absent:
        pipelines = book.pipelines_making(absent, run.artifacts.keys())
        command = book.suggest_command(pipelines, run_id=run.run_id)
        raise CommandError(
            f"{', '.join(sorted(absent))} must be in run {run.run_id}, got none; first type: {command}"
        )
    for name, version in load_versions.items():
        first = run.artifacts.get(name)
        if first != version:
            raise CommandError(
                f"{name} of run {run.run_id} must be that of {first or 'no run'}, with which it began, "
                f"got {version}; {way_to_another_run()}"
            )
