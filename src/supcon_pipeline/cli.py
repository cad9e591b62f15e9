"""The commands of this project: `kedro run`, and `kedro runs` on top of what it leaves."""

import copy
import json
import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as _kedro_run
from kedro.framework.cli.utils import CONTEXT_SETTINGS, KedroCliError, env_option

from supcon_pipeline.commands import CommandError, program_of
from supcon_pipeline.core.messages import format_bytes

if TYPE_CHECKING:
    from supcon_pipeline.run_commands.books import Experiment


@click.group(context_settings=CONTEXT_SETTINGS, name="supcon_pipeline")
def cli() -> None:
    """Commands of this project."""


class _RunCommand(click.Command):
    """`kedro run`, whose own refusals are shown: since Click 8.2 Kedro prints `NoneType: None` instead."""

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **named)
        except KedroCliError as error:
            raise CommandError(error.message) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KedroCliError as error:
            raise CommandError(error.message) from error


def _read_versions(_: click.Context, __: click.Parameter, value: str | dict[str, str]) -> dict[str, str]:
    """`encoder:<run id>,classifier:<run id>` as a mapping; from a `--config` file it is one already."""
    if isinstance(value, dict):
        return value
    versions = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, colon, version = (part.strip() for part in pair.partition(":"))
        if (
            not name
            or not colon
            or not version
            or "/" in version
            or "\\" in version
            or version in (".", "..")
        ):
            raise CommandError(
                f"--load-versions must be pairs of artifact and run such as encoder:2026-01-01, got '{pair}'"
                "; see the runs with: kedro runs list"
            )
        versions[name] = version
    return versions


def _read_params(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Parameters as Kedro reads them, with a line for those that are no YAML."""
    from kedro.framework.cli.utils import _split_params
    from yaml import YAMLError, safe_load

    try:
        return _split_params(context, option, value)
    except YAMLError:
        for item in value.split(","):
            name, _, typed = (part.strip() for part in item.partition("="))
            try:
                safe_load(typed)
            except YAMLError:
                quoted = shlex.quote(f"{name}={json.dumps(typed, ensure_ascii=False)}")
                raise CommandError(
                    f"--params must have values as in YAML, got '{item}'; as text it is: --params {quoted}"
                ) from None
        raise


def _copy_run() -> click.Command:
    """Kedro's own command; Kedro's is left as it is."""
    options = [copy.copy(option) for option in _kedro_run.params]
    for option in options:
        if option.name == "load_versions":
            option.callback = _read_versions
        elif option.name == "params":
            option.callback = _read_params
    return _RunCommand("run", callback=_kedro_run.callback, params=options, help=_kedro_run.help)


# `python -m supcon_pipeline` and packaged projects look for it here.
run = _copy_run()
cli.add_command(run)


class _Runs(click.Group):
    """`kedro runs`, whose commands tell in one line what is refused and what the machine lacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from supcon_pipeline.accidents import raise_in_one_line

            raise_in_one_line(error)
            raise


@cli.group(cls=_Runs)
def runs() -> None:
    """List, show, compare, reproduce, delete and prune runs, and search parameters by many.

    A run is named by its id or the beginning of it. Without --env, the runs of all experiments are meant.
    """
    # What is printed can be read by another program; what is wrong goes to the error stream.
    for handler in [*logging.getLogger().handlers, *logging.getLogger("supcon_pipeline").handlers]:
        if hasattr(handler, "console"):
            handler.console.stderr = True


def _experiments(context: click.Context, env: str | None) -> "list[Experiment]":
    """The experiments that a command is about."""
    from supcon_pipeline.projects import find_folder, prepare_folder
    from supcon_pipeline.run_commands.books import experiments

    metadata = context.obj or prepare_folder(find_folder(Path.cwd()))
    return experiments(metadata.project_path, env)


def _print(*parts: Any) -> None:
    from rich.console import Console

    # A file or another program gets whole lines.
    width = None if Console().is_terminal else 10_000
    Console(highlight=False, width=width).print(*parts, sep="\n")


@runs.command("list")
@env_option
@click.option("--sort", default="when", help="Field, metric or parameter, such as classifier.accuracy.")
@click.option("--reverse", is_flag=True, help="Turn the order round.")
@click.option(
    "--filter", "conditions", multiple=True, help="Such as outcome=failed, or classifier.accuracy>0.9."
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON, with all headline metrics.")
@click.pass_context
def list_runs(
    context: click.Context,
    env: str | None,
    sort: str,
    reverse: bool,
    conditions: tuple[str, ...],
    is_json: bool,
) -> None:
    """When each run began, how it ended, its metrics and how long it took; the newest first."""
    from supcon_pipeline.run_commands.listing import describe, keep, order, tabulate

    found = _experiments(context, env)
    together = [run for experiment in found for run in experiment.summaries]
    if sum(bool(experiment.summaries) for experiment in found) > 1:
        together.sort(key=lambda run: run.record["started"], reverse=True)
    chosen = order(keep(together, conditions), sort, reverse)
    if is_json:
        click.echo(json.dumps([describe(run) for run in chosen], indent=2))
    elif not chosen:
        first = f"No runs yet; type: {program_of(found[0].project_path)} run"
        click.echo("No run meets the filter" if together else first)
    else:
        _print(tabulate(chosen))


@runs.command()
@click.argument("run_id")
@env_option
@click.pass_context
def show(context: click.Context, run_id: str, env: str | None) -> None:
    """The commands, parameters, metrics and artifacts of a run."""
    from supcon_pipeline.run_commands.books import find_run
    from supcon_pipeline.run_commands.comparison import show

    _print(*show(*find_run(_experiments(context, env), run_id)))


@runs.command()
@click.argument("run_ids", nargs=-1, required=True)
@env_option
@click.pass_context
def compare(context: click.Context, run_ids: tuple[str, ...], env: str | None) -> None:
    """What differs between runs, and their metrics side by side."""
    from supcon_pipeline.run_commands.books import find_run
    from supcon_pipeline.run_commands.comparison import compare

    if len(run_ids) < 2:
        raise CommandError(f"runs must be two or more, got {run_ids[0]} alone; add another run")
    found = _experiments(context, env)
    _print(*compare([find_run(found, run_id) for run_id in run_ids]))


@runs.command()
@click.argument("run_id")
@env_option
@click.pass_context
def reproduce(context: click.Context, run_id: str, env: str | None) -> None:
    """The command that does a run again, and what differs today."""
    from supcon_pipeline.run_commands.books import find_run
    from supcon_pipeline.run_commands.reproduction import commands, differences

    experiment, run = find_run(_experiments(context, env), run_id)
    click.echo("\n".join(commands(experiment, run)))
    differing = list(differences(experiment, run))
    click.echo("\n# Differs today:" if differing else "\n# Nothing that was recorded differs today.")
    for line in differing:
        click.echo(f"#   {line}")


@runs.command()
@click.argument("run_id")
@env_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Even a run that others are, or may be, based on, or that runs.")
@click.pass_context
def delete(context: click.Context, run_id: str, env: str | None, yes: bool, force: bool) -> None:
    """Delete a run with all that it made."""
    from supcon_pipeline.run_commands.removal import choose_run, delete, size_of

    experiment, chosen = choose_run(_experiments(context, env), run_id, force)
    size = format_bytes(size_of(experiment, chosen))
    if not yes:
        click.confirm(f"Delete run {chosen} of {experiment.name}, {size}?", abort=True)
    delete(experiment, chosen)
    click.echo(f"Deleted run {chosen} of {experiment.name}, {size}")


@runs.command()
@env_option
@click.option("--yes", is_flag=True, help="Remove it; without this, it is only listed.")
@click.pass_context
def prune(context: click.Context, env: str | None, yes: bool) -> None:
    """Remove what no run needs: progress of trainings that were given up, half-written and damaged files."""
    from supcon_pipeline.run_commands.removal import leftovers, remove

    found = [leftover for experiment in _experiments(context, env) for leftover in leftovers(experiment)]
    removable = [leftover for leftover in found if not leftover.is_kept]
    for leftover in found:
        verb = "Kept" if leftover.is_kept else "Removed" if yes else "Would remove"
        if yes and not leftover.is_kept:
            remove(leftover)
        size = f", {format_bytes(leftover.size)}" if leftover.size else ""
        click.echo(f"{verb} {leftover.path}{size}: {leftover.reason}")
    total = format_bytes(sum(leftover.size for leftover in removable))
    if not removable:
        click.echo("There is nothing to remove")
    elif not yes:
        click.echo(f"{total} in all; to remove them, add --yes")


@runs.command()
@click.argument("file", type=click.Path(path_type=Path))
@env_option
@click.option("--dry-run", "is_dry", is_flag=True, help="Show what would run.")
@click.pass_context
def sweep(context: click.Context, file: Path, env: str | None, is_dry: bool) -> None:
    """Search the parameters that a file declares, and evaluate the best on fresh seeds.

    Where it was stopped, the same command goes on.
    """
    from rich.console import Console
    from rich.text import Text

    from supcon_pipeline.run_commands.sweep.command import sweep

    # A file or another program gets whole lines.
    console = Console(highlight=False, width=None if Console().is_terminal else 10_000)
    # Its runs, as all others, would take the experiment from there.
    experiment, *_ = _experiments(context, env or os.environ.get("KEDRO_ENV"))
    sweep(file, experiment, lambda part: console.print(part, soft_wrap=isinstance(part, Text)), is_dry)
