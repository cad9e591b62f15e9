"""`kedro runs sweep`: a search from its file to the table of the best trial on fresh seeds."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.claims import Claim
from supcon_pipeline.interrupts import unwinding_on_signals
from supcon_pipeline.run_commands.books import Experiment
from supcon_pipeline.run_commands.sweep.checks import plan_sweep
from supcon_pipeline.run_commands.sweep.file import read_sweep
from supcon_pipeline.run_commands.sweep.plan import SweepPlan, find_versions
from supcon_pipeline.run_commands.sweep.runs import FailedRunError, HopelessError, SweepRuns
from supcon_pipeline.run_commands.sweep.search import (
    best_trial,
    count_ended,
    importances,
    open_study,
    search,
    settle,
)
from supcon_pipeline.run_commands.sweep.space import Choice
from supcon_pipeline.run_commands.sweep.summary import (
    command_with,
    describe_best,
    describe_final,
    describe_plan,
)

if TYPE_CHECKING:
    from optuna import Study

Show = Callable[[RenderableType], None]


def sweep(path: Path, experiment: Experiment, show: Show, is_dry: bool = False) -> None:
    """Search, or go on searching, and evaluate the best trial on fresh seeds.

    Args:
        path: the file that declares the sweep.
        experiment: that it is of.
        show: prints a part of the output.
        is_dry: whether to show only what would run.

    Raises:
        InputError: where the sweep cannot begin or go on.
    """
    plan = plan_sweep(path.stem, read_sweep(path), experiment)
    folder = _folder(experiment)
    store = folder / f"{plan.name}.db"
    if is_dry:
        for part in _dry(plan, store):
            show(part)
        return
    claim = Claim(folder, [plan.name], "sweep")
    try:
        with open_study(store, plan) as study, unwinding_on_signals():
            _sweep(study, plan, folder, show)
    except (KeyboardInterrupt, SystemExit):
        show(Text("Stopped; the same command goes on"))
        raise
    finally:
        claim.release()


def _folder(experiment: Experiment) -> Path:
    """Where the studies of an experiment are: beside the progress of its trainings, which is never remote."""
    progress: Any = experiment.catalog.get("stage1_progress")
    return Path(progress._filepath).parent / "sweeps"


def _shown(folder: Path, plan: SweepPlan) -> Path:
    project_path = plan.experiment.project_path
    return folder.relative_to(project_path) if folder.is_relative_to(project_path) else folder


def _dry(plan: SweepPlan, store: Path) -> Iterator[RenderableType]:
    if not store.exists():
        return describe_plan(plan.reading(_begin(plan)), 0)
    with open_study(store, plan) as study:
        return describe_plan(settle(study, plan, _begin), count_ended(study))


def _begin(plan: SweepPlan) -> dict[str, str]:
    """What the runs of a new sweep read.

    Raises:
        CommandError: where runs of a former sweep have its name.
    """
    for head in plan.experiment.records_alone().heads():
        if re.match(rf"{re.escape(plan.name)}-(data$|t\d\d\d)", head["run_id"]):
            raise CommandError(
                f"sweep {plan.name} must have a name of its own, got that of the run {head['run_id']}; "
                "rename the file, or delete the runs of the former sweep: kedro runs delete"
            )
    return find_versions(plan)


def _sweep(study: "Study", plan: SweepPlan, folder: Path, show: Show) -> None:
    def say(line: str) -> None:
        show(Text(line))

    plan = settle(study, plan, _begin)
    runs = SweepRuns(plan, folder / plan.name)
    ended = f"{count_ended(study)} of {plan.num_trials} trials are done"
    say(f"{plan.name}: {ended}; what the runs print is in {_shown(runs.folder, plan)}")
    with _explaining(plan.name):
        runs.prepare()
    search(study, plan, runs, say)
    best = best_trial(study)
    if best is None or best.value is None:
        raise CommandError(
            f"one trial of {plan.name} must end with a value, got none; look into {runs.folder}, and begin "
            "with other ranges under another name"
        )
    for part in describe_best(plan, best.number, best.value, best.params, importances(study)):
        show(part)
    _evaluate(plan, runs, best.number, best.params, show)
    say(f"To train with them: {command_with(plan, best.params)}")
    if failed := plan.num_trials - count_ended(study):
        say(f"{failed} of the trials have failed; the same command tries them again")


def _evaluate(
    plan: SweepPlan, runs: SweepRuns, number: int, values: Mapping[str, Choice], show: Show
) -> None:
    """Train the best trial again on fresh seeds, and show what it is worth on test images after the last."""
    planned = [plan.final_run(number, seed, values) for seed in plan.final_seeds]
    results = []
    for run in planned:
        with _explaining(run.run_id):
            results.append(runs.evaluate(run))
        show(Text(f"{run.run_id}  {results[-1][0]:.4f} on validation images"))
    for part in describe_final(plan, planned, *zip(*results, strict=True)):
        show(part)


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Tell in one line how a run has failed without which a sweep does not go on.

    Raises:
        CommandError: with the line.
    """
    try:
        yield
    except (FailedRunError, HopelessError) as error:
        raise CommandError(
            f"{name} must end well, got: {error}; mend that, and give the same command to go on"
        ) from error
