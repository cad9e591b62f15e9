"""The commands of `supcon_pipeline`, which need no project."""

from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.utils import CONTEXT_SETTINGS, LazyGroup

from supcon_pipeline import __version__
from supcon_pipeline.cli import run, runs
from supcon_pipeline.commands import CommandError, complete_commands, program_of
from supcon_pipeline.projects import PACKAGE, find_folder, prepare_folder


class _Program(LazyGroup):
    """A group whose refusals name the commands that work in the current folder."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CommandError as error:
            program = program_of(find_folder(Path.cwd()))
            raise CommandError(complete_commands(error.message, None, program)) from error


@click.group(
    cls=_Program,
    context_settings=CONTEXT_SETTINGS,
    lazy_subcommands={
        "catalog": "kedro.framework.cli.catalog.catalog",
        "registry": "kedro.framework.cli.registry.registry",
    },
)
@click.version_option(__version__, prog_name=PACKAGE)
@click.pass_context
def program(context: click.Context) -> None:
    """Train image encoders by supervised contrastive learning.

    In a project this does what `kedro` does. Any other folder has the configuration of the package, and
    artifacts go to its data/.
    """
    if context.invoked_subcommand != "init":
        context.obj = prepare_folder(find_folder(Path.cwd()))


program.add_command(run)
program.add_command(runs)


@program.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project to change in a new or empty folder: configuration, data/ and a README."""
    from supcon_pipeline.new_project import write_project

    write_project(folder)
    click.echo(f"Made a project in {folder}; go there and type: {program_of(folder)} run")
