"""New projects, which have a configuration to change and run the pipelines of the installed package."""

import json
import shutil
from pathlib import Path

from kedro import __version__ as kedro_version

from supcon_pipeline import __version__
from supcon_pipeline.accidents import raise_in_one_line
from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.messages import name_some
from supcon_pipeline.packaged import CONF, TEMPLATE
from supcon_pipeline.projects import require_plain_path

# Where the parts are made, before they are moved to their places.
_UNFINISHED = ".unfinished"


def write_project(folder: Path) -> None:
    """Make a project in a folder that is new or empty.

    `pyproject.toml`, by which Kedro knows a project, comes last. What is interrupted leaves nothing. A
    process that is killed leaves a folder that is no project; what it had not moved, the next attempt
    replaces.

    Raises:
        CommandError: where something is in the folder, or it cannot be written.
    """
    folder = folder.absolute()
    require_plain_path(folder)
    try:
        _require_empty(folder)
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(folder)
        except BaseException:
            _clear(folder, is_new)
            raise
    except OSError as error:
        raise_in_one_line(error)
        raise


def _write(folder: Path) -> None:
    unfinished = folder / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    _write_parts(unfinished, folder.name)
    for part in sorted(unfinished.iterdir(), key=lambda path: path.name == "pyproject.toml"):
        part.rename(folder / part.name)
    unfinished.rmdir()


def _clear(folder: Path, is_new: bool) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if is_new:
        folder.rmdir()


def _require_empty(folder: Path) -> None:
    found = [path.name for path in folder.iterdir() if path.name != _UNFINISHED] if folder.exists() else []
    if found:
        raise CommandError(
            f"folder must be new or empty, got {folder} with {name_some(sorted(found))}; choose another"
        )


def _write_parts(folder: Path, name: str) -> None:
    shutil.copytree(CONF, folder / "conf", ignore=shutil.ignore_patterns("local"))
    for kept in ("conf/local", "data", "src"):
        (folder / kept).mkdir()
        (folder / kept / ".gitkeep").touch()
    (folder / ".telemetry").write_text("consent: false\n", "utf-8")
    words = {"version": __version__, "kedro": kedro_version}
    # As TOML has it between quotes.
    quoted = json.dumps(name, ensure_ascii=False)[1:-1]
    for source, target in (("pyproject.toml",) * 2, ("README.md",) * 2, ("gitignore", ".gitignore")):
        text = (TEMPLATE / source).read_text("utf-8")
        shown = quoted if target == "pyproject.toml" else name
        (folder / target).write_text(text.format(name=shown, **words), "utf-8")
