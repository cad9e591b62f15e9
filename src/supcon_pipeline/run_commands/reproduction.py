"""The command that does a run again, and what has changed since."""

from collections.abc import Iterator, Mapping
from typing import Any

from kedro.pipeline import Pipeline

from supcon_pipeline.commands import CommandError, is_sayable, leaves, program_of, run_command
from supcon_pipeline.core.messages import name_some
from supcon_pipeline.datasets.run_record import TaskEntry
from supcon_pipeline.provenance import describe_commit, package_versions
from supcon_pipeline.run_commands.books import Experiment, Summary, differing
from supcon_pipeline.run_commands.comparison import parameter_changes

# The options of `kedro run` that choose nodes, by the name that a record has for them.
_OPTIONS = {
    "node_names": "--nodes",
    "tags": "--tags",
    "namespaces": "--namespaces",
    "from_nodes": "--from-nodes",
    "to_nodes": "--to-nodes",
    "from_inputs": "--from-inputs",
    "to_outputs": "--to-outputs",
}


def commands(experiment: Experiment, run: Summary) -> list[str]:
    """What to type to do a run again: one command, or one for each session where these differed.

    Parameters for which the files have another value today are given with it, as far as `--params` can say
    them, and the artifacts that were read are read again, whatever was made since.

    Raises:
        CommandError: where the run does not say what it was asked for.
    """
    changes = {name: value for name, (value, _) in parameter_changes(experiment, run).items()}
    tasks = run.record["tasks"]
    if not tasks and run.record["outcome"] == "interrupted":
        raise CommandError(
            f"run must say what it was asked for, got {run.run_id}, which was stopped before; "
            f"to delete it type: kedro runs delete {run.run_id}"
        )
    if not tasks:
        return [_command_of_artifacts(experiment, run, changes)]
    # A run that was continued was asked for the same thing twice.
    asked = list(dict.fromkeys(_command_of_task(experiment, run, task, changes) for task in tasks))
    if len(asked) == 1:
        return asked
    return [f"SUPCON_RUN_ID={run.run_id}-again {command}" for command in asked]


def _command_of_task(experiment: Experiment, run: Summary, task: TaskEntry, changes: dict[str, Any]) -> str:
    selection = task["selection"]
    params = {name: value for name, value in changes.items() if name.partition(".")[0] in task["parameters"]}
    nodes = [node for node in experiment.book.graph.nodes if node.name in task["nodes"]]
    return run_command(
        # Kedro mixes up their order, which changes nothing, at every start.
        sorted(selection.get("pipeline_names", [])),
        task["env"],
        _sayable({**dict(leaves(task["given"])), **params}),
        _pins(run, Pipeline(nodes)),
        program=program_of(experiment.project_path),
        selection={option: selection.get(name, []) for name, option in _OPTIONS.items()},
    )


def _command_of_artifacts(experiment: Experiment, run: Summary, changes: dict[str, Any]) -> str:
    """The command for an old run, which did not record what it was asked for, from what it made."""
    graph, read = experiment.book.graph, experiment.book.read(run.run_id)
    made = {name for name, version in (read.artifacts if read else {}).items() if version == run.run_id}
    nodes = Pipeline([node for node in graph.nodes if set(node.outputs) & made])
    pipelines = list(dict.fromkeys(str(node.namespace) for node in nodes.nodes))
    program = program_of(experiment.project_path)
    return run_command(pipelines, experiment.env, _sayable(changes), _pins(run, nodes), program=program)


def _pins(run: Summary, nodes: Pipeline) -> dict[str, str]:
    """The versions that nodes of a run read of earlier runs."""
    base = run.record["base_artifacts"]
    own = {
        output
        for task in run.record["tasks"]
        for node in task["nodes"].values()
        for output in node["outputs"]
    }
    return {name: base[name] for name in sorted(nodes.inputs() & base.keys() - own)}


def _sayable(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that `--params` can take: it splits at commas, and knows no lists."""
    return {name: value for name, value in params.items() if is_sayable(name, value)}


def differences(experiment: Experiment, run: Summary) -> Iterator[str]:
    """What differs today from when the run was made, one line each."""
    record, tasks = run.record, run.record["tasks"]
    commit, reason = describe_commit(experiment.project_path)
    if record["commit"] != commit:
        before = record["commit"] or record.get("commit_reason") or "unknown"
        yield f"commit: was {before}, is {commit or reason}"
    elif commit is None:
        yield f"commit: unknown, {reason}"
    elif commit.endswith("+changes"):
        yield f"commit: {commit}, with changes that are not in it"
    for name, (value, today) in parameter_changes(experiment, run).items():
        how = "given above" if is_sayable(name, value) else "cannot be given by --params: set it in the file"
        yield f"parameters: {name} was {value!r}, is {today!r} in the files ({how})"
    packages = tasks[-1]["packages"] if tasks else {}
    for name, (before, now) in differing(packages, package_versions() if packages else {}).items():
        yield f"package: {name} was {before or 'absent'}, is {now or 'absent'}"
    if not packages:
        yield "packages: not recorded by this run"
    yield from _data_differences(experiment, run)


def _data_differences(experiment: Experiment, run: Summary) -> Iterator[str]:
    """Whether the newest run with images has the same, and whether all that was inherited is there."""
    book = experiment.book
    own = book.read(run.run_id)
    newest = next((other for other in book.newest_first() if "dataset_card" in other.artifacts), None)
    if own and newest and "dataset_card" in own.artifacts:
        versions = (own.artifacts["dataset_card"], newest.artifacts["dataset_card"])
        before, now = (book._pinned("dataset_card", version).load()["data_hash"] for version in versions)
        if before != now:
            yield f"data: hash was {before[:12]}, is {now[:12]} in run {newest.run_id}"
    base = {name: version for name, version in run.record["base_artifacts"].items() if name in book.names}
    made = {name for name, version in (own.artifacts if own else {}).items() if version == run.run_id}
    inherited = book.without_descendants(base, made)
    gone = sorted(name for name, version in inherited.items() if not book._pinned(name, version).exists())
    if gone:
        yield f"artifacts of {run.record['base']}: {name_some(gone)} are no longer there"
