"""Folders to run in: projects, which have a configuration, and all others, for which the package has one."""

from pathlib import Path

from kedro import __version__ as kedro_version
from kedro.framework.project import configure_project, settings
from kedro.framework.startup import ProjectMetadata, _get_project_metadata, bootstrap_project
from kedro.utils import find_kedro_project, is_kedro_project

from supcon_pipeline.commands import CommandError
from supcon_pipeline.packaged import CONF

PACKAGE = "supcon_pipeline"


def find_folder(start: Path) -> Path:
    """The project of this package that holds a folder; where none does, the folder itself.

    Raises:
        CommandError: where the folder is a project of another package.
    """
    project = find_kedro_project(start)
    if project is None or _package_of(project) == PACKAGE:
        return project or start
    if project == start:
        raise CommandError(
            f"folder must not be a project of another package, got {start} of {_package_of(start)}; "
            "change to another folder"
        )
    return start


def _package_of(project: Path) -> str:
    return _get_project_metadata(project).package_name


def prepare_folder(folder: Path) -> ProjectMetadata:
    """Prepare Kedro for a folder, as Kedro itself does for a project."""
    if is_kedro_project(folder):
        return bootstrap_project(folder)
    configure_project(PACKAGE)
    return ProjectMetadata(
        config_file=folder / "pyproject.toml",
        package_name=PACKAGE,
        project_name=PACKAGE,
        project_path=folder,
        source_dir=folder,
        kedro_init_version=kedro_version,
        tools=[],
        example_pipeline="",
    )


def configuration_of(folder: Path) -> Path:
    """Where the configuration for a folder is: in it, or in this package."""
    own: Path = folder / settings.CONF_SOURCE
    return CONF if is_packaged(own) else own


def is_packaged(source: Path) -> bool:
    """Whether a folder of configuration is absent outside of a project, so that of the package counts."""
    return not source.exists() and not is_kedro_project(source.parent)


def require_plain_path(folder: Path) -> None:
    """Refuse a folder in whose path Kedro would see a pattern; it looks for files and versions by patterns.

    Raises:
        CommandError: where it has such letters.
    """
    if set("*?[") & set(str(folder)):
        raise CommandError(
            f"folder of the project must have no *, ? or [ in its path, got {folder}; rename or move it"
        )
