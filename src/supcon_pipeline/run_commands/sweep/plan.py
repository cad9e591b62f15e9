"""The runs of a sweep: what each of them makes, reads and is given."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from kedro.pipeline import Pipeline

from supcon_pipeline.commands import leaves, program_of, run_command
from supcon_pipeline.opening import OF_SPEED
from supcon_pipeline.pipeline_registry import register_pipelines
from supcon_pipeline.run_commands.books import Experiment
from supcon_pipeline.run_commands.sweep.file import SweepFile
from supcon_pipeline.run_commands.sweep.space import Choice, Range, Space
from supcon_pipeline.validation import parameter_groups

# The trainings that leave a history of a validation metric.
STAGES = ("stage1", "stage2", "baseline")
DATA = "data_prep"


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, before it is started.

    Args:
        run_id: its id.
        pipelines: what it runs.
        params: parameters that are given for it, by dotted name.
        load_versions: what it reads of earlier runs, version by artifact.
        env: the experiment; None for the default one.
        program: what is typed for Kedro, from `program_of`.
    """

    run_id: str
    pipelines: list[str]
    params: dict[str, Any]
    load_versions: dict[str, str]
    env: str | None
    program: str

    @property
    def words(self) -> list[str]:
        """The arguments of `kedro`."""
        return shlex.split(run_command(self.pipelines, self.env, self.params, self.load_versions))[1:]

    @property
    def command(self) -> str:
        """The command as it is typed."""
        return run_command(
            self.pipelines,
            self.env,
            self.params,
            self.load_versions,
            run_id=self.run_id,
            program=self.program,
        )


@dataclass(frozen=True)
class SweepPlan:
    """All that the runs of a sweep have in common.

    Args:
        name: of the sweep, with which the ids of its runs begin.
        sweep: what its file declares.
        experiment: that it is of.
        parameters: of the experiment with what is fixed.
        space: the searched parameters.
        trial_pipelines: what a trial runs.
        final_pipelines: what the best trial runs on fresh seeds.
        has_own_data: whether a run of its own prepares the images, once for all others.
        load_versions: what the runs read of earlier ones, version by artifact.
    """

    name: str
    sweep: SweepFile
    experiment: Experiment
    parameters: dict[str, Any]
    space: Space
    trial_pipelines: list[str]
    final_pipelines: list[str]
    has_own_data: bool
    load_versions: dict[str, str] = field(default_factory=dict)

    def reading(self, load_versions: dict[str, str]) -> Self:
        """The same, with what the runs read of earlier ones."""
        return replace(self, load_versions=load_versions)

    @property
    def program(self) -> str:
        """What is typed for Kedro where the sweep runs."""
        return program_of(self.experiment.project_path)

    @property
    def seeds(self) -> list[int]:
        """The seeds of each trial."""
        return [self.parameters["seed"] + index for index in range(self.sweep.repeats)]

    @property
    def final_seeds(self) -> list[int]:
        """Seeds that no trial has."""
        first = self.parameters["seed"] + self.sweep.repeats
        return [first + index for index in range(self.sweep.final_seeds)]

    @property
    def num_trials(self) -> int:
        """How many trials there are in all."""
        return self.sweep.trials or len(self.space.grid())

    @property
    def fewest_epochs(self) -> int:
        """Epochs of the shortest training of a trial."""
        stage = "stage1" if self.sweep.stage == "baseline" else self.sweep.stage
        values = self.sweep.search.get(f"{stage}.schedule.num_epochs")
        if isinstance(values, Range):
            return int(values.low)
        return min(values) if values else int(self.parameters[stage]["schedule"]["num_epochs"])

    def label(self, number: int) -> str:
        """With what the ids of the runs of a trial begin."""
        return f"{self.name}-t{number:03d}"

    @property
    def data_run(self) -> PlannedRun:
        """The run that prepares the images for all others."""
        return self._run(f"{self.name}-data", [DATA], self.sweep.fixed)

    def trial_run(self, number: int, seed: int, values: Mapping[str, Choice]) -> PlannedRun:
        """The run of a trial with one of its seeds."""
        run_id = f"{self.label(number)}-s{seed}"
        return self._run(run_id, self.trial_pipelines, self._params(self.trial_pipelines, values, seed))

    def final_run(self, number: int, seed: int, values: Mapping[str, Choice]) -> PlannedRun:
        """The run of the best trial with a fresh seed, and with evaluation."""
        run_id = f"{self.label(number)}-test-s{seed}"
        return self._run(run_id, self.final_pipelines, self._params(self.final_pipelines, values, seed))

    def _params(self, pipelines: Iterable[str], values: Mapping[str, Choice], seed: int) -> dict[str, Any]:
        # Other seeds must not mean other test images.
        split = {f"{DATA}.seed": self.parameters[DATA]["seed"]} if DATA in pipelines else {}
        return {**self.sweep.fixed, **values, "seed": seed, **split}

    def _run(self, run_id: str, pipelines: list[str], params: Mapping[str, Any]) -> PlannedRun:
        graph = graph_of(pipelines)
        read, taken = graph.inputs(), groups_of(graph) | {"seed"}
        versions = {name: version for name, version in self.load_versions.items() if name in read}
        given = {name: value for name, value in params.items() if name.partition(".")[0] in taken}
        return PlannedRun(run_id, pipelines, given, versions, self.experiment.env, self.program)

    def identity(self) -> dict[str, Any]:
        """What must stay the same while the sweep goes on, as plain values."""
        search = {
            name: values.model_dump(exclude_none=True) if isinstance(values, Range) else values
            for name, values in self.sweep.search.items()
        }
        groups = sorted(groups_of(graph_of(self.trial_pipelines)) & self.parameters.keys())
        parameters = dict(leaves({name: self.parameters[name] for name in groups}))
        return {
            **self.sweep.model_dump(include={"metric", "repeats", "sampler", "prune"}),
            "search": search,
            "pipelines": self.trial_pipelines,
            "parameters": {
                name: value
                for name, value in parameters.items()
                if name.rpartition(".")[2] not in OF_SPEED and name not in search
            },
        }


def find_versions(plan: SweepPlan) -> dict[str, str]:
    """What the runs of a new sweep read: of its own data run, or of the newest run that has it.

    Raises:
        CommandError: where no run has it.
    """
    book = plan.experiment.book
    graph = graph_of([*plan.trial_pipelines, *plan.final_pipelines])
    needed = sorted(graph.inputs() & set(book.names) - book.optional)
    if plan.has_own_data:
        return dict.fromkeys(needed, plan.data_run.run_id)
    base = book.base_for(set(needed)) if needed else None
    return {name: base.artifacts[name] for name in needed} if base else {}


def graph_of(pipelines: Iterable[str]) -> Pipeline:
    """Pipelines as one."""
    known = register_pipelines()
    return sum((known[name] for name in pipelines), Pipeline([]))


def groups_of(graph: Pipeline) -> set[str]:
    """The groups of parameters that a graph takes."""
    return {group for node in graph.nodes for group in parameter_groups(node)}
