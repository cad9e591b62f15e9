"""The search of a sweep, by Optuna: what is tried next, what is stopped, and what was best."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

import numpy as np

from supcon_pipeline.commands import CommandError, causes
from supcon_pipeline.core.messages import require_extra
from supcon_pipeline.core.metrics.direction import LOWER_IS_BETTER
from supcon_pipeline.core.training.progress import describe_difference
from supcon_pipeline.run_commands.listing import duration
from supcon_pipeline.run_commands.sweep.plan import PlannedRun, SweepPlan
from supcon_pipeline.run_commands.sweep.runs import FailedRunError, HopelessError, Report
from supcon_pipeline.run_commands.sweep.space import Choice, in_short

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

# Whole trials before the first is stopped.
_BEFORE_PRUNING = 5
# Share of the epochs in which no trial is stopped.
_SPARED = 0.25
# Failures in a row after which something is wrong with more than the trials.
_MAX_FAILURES = 3
_ATTRIBUTE = "sweep"


class Trainer(Protocol):
    """What trains for a search; see `SweepRuns`."""

    def validate(self, run: PlannedRun, report: Report | None = None) -> float:
        """The value of a run on the validation images."""


@contextmanager
def open_study(path: Path, plan: SweepPlan) -> Iterator["Study"]:
    """The study in a file: a new one, or the one that was begun there.

    Raises:
        InputError: where Optuna is not installed.
        CommandError: where the file is damaged.
    """
    require_extra("sweep", "optuna")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_lower_better = plan.sweep.column in LOWER_IS_BETTER
    warmup = round(_SPARED * plan.fewest_epochs)
    pruner = optuna.pruners.MedianPruner(_BEFORE_PRUNING, warmup) if plan.sweep.prune else None
    with _refusing_damage(path), open_storage(path) as storage:
        yield optuna.create_study(
            storage=storage,
            study_name=plan.name,
            direction="minimize" if is_lower_better else "maximize",
            pruner=pruner or optuna.pruners.NopPruner(),
            load_if_exists=True,
        )


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Tell in one line that a database is damaged; SQLite raises kinds of its error for all else."""
    try:
        yield
    except Exception as error:
        found = next((cause for cause in causes(error) if type(cause) is sqlite3.DatabaseError), None)
        if found is None:
            raise
        words = " ".join(str(found).split())
        raise CommandError(
            f"{path} must be as the sweep has written it, got one that is damaged ({words}); "
            "restore it from a copy, or begin again under another name"
        ) from error


@contextmanager
def open_storage(path: Path) -> Iterator["BaseStorage"]:
    """A database in a file."""
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def settle(study: "Study", plan: SweepPlan, begin: Callable[[SweepPlan], dict[str, str]]) -> SweepPlan:
    """Begin a search, or go on with it; gives the plan with the versions that its runs read from the start.

    Args:
        study: of the search.
        plan: of the search.
        begin: finds these versions for a new search.

    Raises:
        CommandError: where another search was begun under the name.
    """
    identity, begun = plan.identity(), study.user_attrs.get(_ATTRIBUTE)
    if begun is None:
        begun = {"identity": identity, "load_versions": begin(plan)}
        study.set_user_attr(_ATTRIBUTE, begun)
    elif begun["identity"] != identity:
        difference = describe_difference(begun["identity"], identity)
        raise CommandError(
            f"sweep {plan.name} must stay the search that it was begun as, got another ({difference}); "
            "undo that, or give the file another name to begin a new one"
        )
    if plan.sweep.sampler == "grid":
        for values in plan.space.grid():
            study.enqueue_trial(values, skip_if_exists=True)
    return plan.reading(begun["load_versions"])


def count_ended(study: "Study") -> int:
    """How many trials have a value, or were given up."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def search(study: "Study", plan: SweepPlan, trainer: Trainer, say: Callable[[str], None]) -> None:
    """Run all trials that have not ended.

    A trial that fails has not ended; it is tried again when the search goes on another time.

    Args:
        study: of the search.
        plan: of the search.
        trainer: trains for it.
        say: shows a line.

    Raises:
        CommandError: where trial after trial fails.
    """
    num_failed = 0
    for trial in _trials(study, plan):
        values, start = plan.space.suggest(trial), time.monotonic()
        beginning = f"{plan.label(trial.number)}  {in_short(values)}"
        try:
            came_out = _run_trial(study, trial, plan, trainer, values)
        except FailedRunError as error:
            num_failed += 1
            say(f"{beginning}: failed: {error}")
            if num_failed == _MAX_FAILURES:
                raise CommandError(
                    f"trials must end, got {num_failed} in a row that failed, the last with: {error}; mend "
                    "that, and give the same command to go on"
                ) from error
            continue
        num_failed = 0
        took = duration(time.monotonic() - start)
        ended = f"{count_ended(study)} of {plan.num_trials}"
        say(f"{beginning}: {came_out}  ({ended}{_best_so_far(study, plan)}, {took})")


def _run_trial(
    study: "Study", trial: "Trial", plan: SweepPlan, trainer: Trainer, values: dict[str, Choice]
) -> str:
    """Run a trial to its end; gives in words what came out."""
    from optuna.trial import TrialState

    try:
        value = _mean_value(study, trial, plan, trainer, values)
    except HopelessError as reason:
        study.tell(trial, state=TrialState.PRUNED)
        return str(reason)
    study.tell(trial, value)
    return f"{value:.4f}"


def _trials(study: "Study", plan: SweepPlan) -> Iterator["Trial"]:
    """First the trials that were cut off or have failed, then new ones."""
    import optuna

    for cut_off in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        yield optuna.Trial(study, cut_off._trial_id)
    while (number := _count_begun(study)) < plan.num_trials:
        # Of its own for each trial: a search that was cut off goes on as if it had not been.
        seed = int(np.random.SeedSequence([plan.seeds[0], number]).generate_state(1)[0])
        is_learning = plan.sweep.sampler == "tpe"
        sampler = optuna.samplers.TPESampler if is_learning else optuna.samplers.RandomSampler
        study.sampler = sampler(seed=seed)
        yield study.ask()


def _count_begun(study: "Study") -> int:
    from optuna.trial import TrialState

    return sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))


def _mean_value(
    study: "Study", trial: "Trial", plan: SweepPlan, trainer: Trainer, values: dict[str, Choice]
) -> float:
    """The mean over the seeds of a trial; the curve of the first says whether it is hopeless."""
    first, *others = [plan.trial_run(trial.number, seed, values) for seed in plan.seeds]
    reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
    if reported and trial.should_prune():
        raise HopelessError(f"stopped after epoch {max(reported)}")

    def report(epoch: int, value: float) -> None:
        if epoch not in reported:
            reported.add(epoch)
            trial.report(value, epoch)
            if trial.should_prune():
                raise HopelessError(f"stopped after epoch {epoch}, with {value:.4f}")

    own = trainer.validate(first, report)
    return fmean([own, *(trainer.validate(run) for run in others)])


def _best_so_far(study: "Study", plan: SweepPlan) -> str:
    best = best_trial(study)
    return f", best {best.value:.4f} of {plan.label(best.number)}" if best else ""


def best_trial(study: "Study") -> "FrozenTrial | None":
    """The trial with the best value; none where none has a value."""
    from optuna.trial import TrialState

    return study.best_trial if study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]) else None


def importances(study: "Study") -> dict[str, float]:
    """How much of the differences each searched parameter makes, by name; empty where that cannot be said."""
    import optuna

    trials = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if len({trial.value for trial in trials}) < _BEFORE_PRUNING or len(trials[0].params) < 2:
        return {}
    return dict(optuna.importance.get_param_importances(study))
