"""Nodes that Dagster runs: it gives each its parameters, may give each a process, and knows no runner."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pydantic import BaseModel

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError
from supcon_pipeline.datasets.progress import ProgressDataset
from supcon_pipeline.datasets.run_record import RunRecordDataset, TaskEntry
from supcon_pipeline.runs import RECORD, RunBook
from supcon_pipeline.task_log import TaskLog, begin_here, describe_nodes, outcome_of
from supcon_pipeline.validation import parameter_groups, parameter_models

logger = logging.getLogger(__name__)


class NodeLog(TaskLog):
    """The entry of a node that has a process or parameters of its own; it ends with the node.

    Args:
        dataset: the record, at the version of the run.
        entry: what is known before the node.
        pipeline: the node.
        progress: what it may resume from, which is removed once it is complete.
    """

    def __init__(
        self,
        dataset: RunRecordDataset,
        entry: TaskEntry,
        pipeline: Pipeline,
        progress: Sequence[ProgressDataset] = (),
    ):
        super().__init__(dataset, entry, pipeline)
        self._progress = progress

    def save_output(self, name: str, output: str) -> None:
        """One of the outputs was saved; with the last of them the entry is complete."""
        super().save_output(name, output)
        if not self._unsaved:
            self.close("completed")
            for dataset in self._progress:
                dataset.clear()

    def fail_node(self, name: str, error: Exception) -> None:
        """The node has raised an error."""
        super().fail_node(name, error)
        self.close(outcome_of(error))


def open_node(book: RunBook, node: Node, inputs: Mapping[str, Any], job: TaskLog | None) -> TaskLog:
    """Prepare a run for a node, whatever it has of it, and choose where to write down how the node ends.

    Outputs that are there, as after a job that failed, are removed: Dagster computes them in any case.

    Args:
        book: the runs of the experiment, whose catalog saves to the run.
        node: the node.
        inputs: what it is given, among it its parameters, which may differ from those of the job.
        job: the log of the job, where that began in this process.

    Returns:
        The log of the job, or one of the node alone.

    Raises:
        CommandError: where no job has begun the run.
    """
    record = _record_of_job(book)
    _remove_outputs(book, node, str(record.resolve_save_version()))
    parameters = _plain_inputs(inputs)
    if job is not None and parameters.items() <= job.entry["parameters"].items():
        return job
    entry = _entry_of_node(job.entry if job is not None else _entry_of_job(record, node), node, parameters)
    datasets = map(book.catalog.get, node.inputs)
    progress = [dataset for dataset in datasets if isinstance(dataset, ProgressDataset)]
    return NodeLog(record, entry, Pipeline([node]), progress)


def _remove_outputs(book: RunBook, node: Node, run_id: str) -> None:
    """Remove what a run has of the outputs of a node."""
    run = book.read(run_id)
    for name in node.outputs:
        if run is not None and run.artifacts.get(name) == run_id:
            logger.warning("Making %s of run %s again", name, run_id)
            book.remove(name, run_id)


def _record_of_job(book: RunBook) -> RunRecordDataset:
    """The record of the run that the catalog saves to and reads."""
    record: RunRecordDataset = book.catalog.get(RECORD)  # type: ignore[assignment]
    if record.resolve_load_version() != record.resolve_save_version() or not record.exists():
        raise CommandError(
            f"{RUN_ID_VARIABLE} must be set where each node has a process of its own, got none; "
            f"set {RUN_ID_VARIABLE} to a new id for each job, or choose the executor in_process"
        )
    return record


def _entry_of_job(record: RunRecordDataset, node: Node) -> TaskEntry:
    """The entry of the last session that was to run a node; the last of all where there is none."""
    tasks = record.load()["tasks"]
    return next((task for task in reversed(tasks) if node.name in task["nodes"]), tasks[-1])


def _entry_of_node(job: TaskEntry, node: Node, parameters: Mapping[str, Any]) -> TaskEntry:
    """The entry of a node alone, which was asked for with its job."""
    groups = {*parameter_groups(node), "seed"}
    of_job = {name: value for name, value in job["parameters"].items() if name in groups}
    return {
        **job,
        **begin_here(),
        "parameters": {**of_job, **parameters},
        "nodes": describe_nodes(Pipeline([node]), set()),
    }


def _plain_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The groups of parameters among the inputs, as plain JSON values, with all that was left out."""
    groups = {}
    for name, model in parameter_models().items():
        value = inputs.get(f"params:{name}")
        if value is not None:
            given = value.model_dump() if isinstance(value, BaseModel) else value
            groups[name] = model.model_validate(given).model_dump(mode="json")
    return groups
