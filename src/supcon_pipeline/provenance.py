"""What the record of a run says of its origin: code, packages, machine and command."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from kedro.utils import is_kedro_project

_PACKAGE = "supcon_pipeline"
NO_REPOSITORY = "not under version control"


def describe_commit(project_path: Path) -> tuple[str | None, str | None]:
    """The commit of the project, plus `+changes` where files are modified; or none, and why.

    Git refuses folders that belong to somebody else, as they do in containers, because their settings could
    run programs. The code of the project runs already, and the one such setting that counts here is off.
    """
    if not is_kedro_project(project_path):
        return None, f"{_PACKAGE} {package_versions()[_PACKAGE]} as installed"
    trusting = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    describe = ["describe", "--always", "--abbrev=40", "--dirty=+changes"]
    try:
        done = subprocess.run(
            ["git", *trusting, "-C", str(project_path), *describe],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        return None, f"unknown: git cannot be run ({error.strerror})"
    if done.returncode == 0:
        return done.stdout.strip(), None
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[0].removeprefix("fatal: ")
    if "not a git repository" in reason:
        return None, NO_REPOSITORY
    return None, f"unknown: git refuses ({reason})"


def package_versions() -> dict[str, str]:
    """Versions, by name, of Python, of this package and of what it depends on, as far as installed."""
    try:
        lines = [line for line in requires(_PACKAGE) or [] if 'extra == "dev"' not in line]
    except PackageNotFoundError:
        lines = []
    dependencies = re.findall(r"^[\w.-]+", "\n".join(lines), re.MULTILINE)
    versions = {"python": platform.python_version()}
    for name in [_PACKAGE, *sorted(set(dependencies), key=str.lower)]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def typed_command() -> str:
    """The command of this process, quoted for a shell."""
    program, *arguments = sys.argv or [""]
    name = Path(program).name
    module = Path(program).parent.name if name == "__main__.py" else ""
    # Kedro puts the three words in place of the program itself.
    words = ["python", "-m", module] if module else program.split() if program == "python -m kedro" else []
    words = words or [name if name in ("kedro", _PACKAGE) else program]
    return shlex.join([*words, *arguments])


def describe_device() -> tuple[str | None, int | None]:
    """The device that torch computes on, and its threads on the CPU; none where torch was not needed."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None, None
    is_cuda = torch.cuda.is_available()
    return torch.cuda.get_device_name() if is_cuda else "cpu", torch.get_num_threads()
