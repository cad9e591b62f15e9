"""What a sweep prints: what it would run, and what came out."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from supcon_pipeline.commands import run_command
from supcon_pipeline.core.pages.headlines import describe_images, headlines_of
from supcon_pipeline.run_commands.sweep.plan import PlannedRun, SweepPlan
from supcon_pipeline.run_commands.sweep.space import Choice, word

# Beside the contrastive model, where the runs have them.
_OTHERS = ("published", "baseline")


def describe_plan(plan: SweepPlan, num_ended: int) -> Iterator[RenderableType]:
    """What a sweep would run, as it is typed."""
    yield Text(
        f"{plan.num_trials} trials of {len(plan.seeds)} {'seed' if len(plan.seeds) == 1 else 'seeds'}, "
        f"{num_ended} of them done, for {plan.sweep.metric}"
    )
    for name, words in plan.space.describe():
        yield Text(f"  {name}: {words}")
    if plan.has_own_data:
        yield Text(f"\nOnce, for all other runs:\n  {plan.data_run.command}")
    values = next(iter(plan.space.corners()))
    yield Text(f"\nIn each trial, with other values:\n  {plan.trial_run(0, plan.seeds[0], values).command}")
    final = plan.final_run(0, plan.final_seeds[0], values)
    yield Text(f"\nIn the end, with the best values and seeds {_seeds(plan)}:\n  {final.command}")


def _seeds(plan: SweepPlan) -> str:
    return ", ".join(map(str, plan.final_seeds))


def describe_best(
    plan: SweepPlan, number: int, value: float, values: Mapping[str, Choice], importances: Mapping[str, float]
) -> Iterator[RenderableType]:
    """The best trial and the command that trains with its values."""
    yield Text(f"\nBest is {plan.label(number)} with {plan.sweep.metric} {value:.4f} on validation images:")
    for name, chosen in values.items():
        share = f"  ({importances[name]:.0%} of the differences)" if name in importances else ""
        yield Text(f"  {name}: {word(chosen)}{share}")


def describe_final(
    plan: SweepPlan,
    runs: Sequence[PlannedRun],
    values: Sequence[float],
    metrics: Sequence[Mapping[str, Any]],
) -> Iterator[RenderableType]:
    """What the best values are worth on fresh seeds: mean and spread over these.

    Args:
        plan: of the sweep.
        runs: one for each seed.
        values: of the metric of the search, likewise.
        metrics: on the test images, likewise.
    """
    seeds = f"{len(runs)} fresh {'seed' if len(runs) == 1 else 'seeds'} ({_seeds(plan)})"
    where = f"{plan.sweep.metric} on validation images"
    yield Text(f"\nWith these values and {seeds}, {where}: {_spread(values)}")
    yield Text(
        f"\nMetrics on {describe_images(metrics[0])}, mean ± standard deviation over the seeds",
        style="italic",
    )
    yield _table(metrics)
    yield Text(f"\nTo compare these runs: {plan.program} runs compare {' '.join(run.run_id for run in runs)}")


def _table(metrics: Sequence[Mapping[str, Any]]) -> Table:
    others = [name for name in _OTHERS if all(name in one for one in metrics)]
    table = Table("metric", box=None, pad_edge=False)
    for column in ("contrastive", *others):
        table.add_column(escape(column), justify="right")
    for group, metric, short, _ in headlines_of(metrics[0]):
        cells = [_values([*metrics], group, metric)]
        cells += [_values([one[name] for one in metrics], group, metric) for name in others]
        table.add_row(f"{group} {short}", *(_spread(values) if values else "" for values in cells))
    return table


def _values(metrics: Sequence[Mapping[str, Any]], group: str, metric: str) -> list[float]:
    """A metric of each run; none where one of them lacks it."""
    values = [one.get(group, {}).get(metric) for one in metrics]
    return [] if None in values else [float(value) for value in values]


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def command_with(plan: SweepPlan, values: Mapping[str, Choice]) -> str:
    """What to type to train with the values of a trial."""
    params = {**plan.sweep.fixed, **values}
    return run_command([], plan.experiment.env, params, program=plan.program)
