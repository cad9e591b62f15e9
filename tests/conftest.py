"""Fixtures: a project of its own for each test, on a configuration that trains in seconds."""

import contextlib
import gc
import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]

# Read when torch is loaded, here and in the processes that tests start. Threads that wait for one another
# made the suite 15 times slower on two cores that were in use.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same examples in every run: what fails once fails again.
hypothesis.settings.register_profile("seeded", derandomize=True)
hypothesis.settings.load_profile("seeded")

# What is imported and collected stays for good: the search for garbage need not go through it each time.
gc.disable()


def pytest_collection_finish() -> None:
    """Search for garbage from here on, among what the tests make."""
    gc.freeze()
    gc.enable()


# One environment whose pipelines take seconds: few images, one epoch, a small map.
TINY = {
    "globals.yml": "",
    "catalog.yml": """
raw_images:
  type: tests.tiny.TinyImagesDataset
  metadata: {kedro-viz: {layer: raw}}
""",
    "parameters.yml": """
data_prep: {image_size: 8}
stage1:
  schedule: {num_epochs: 2, warmup_epochs: 1}
  loader: {batch_size: 32}
stage2:
  schedule: {num_epochs: 2, warmup_epochs: 1}
lr_finder: {num_steps: 12}
evaluation: {knn: {k: 5}, learning_curve: {num_draws: 2}, bootstrap: {num_resamples: 50}}
visualization:
  tsne: {perplexity: 5, num_iterations: 500, max_points: 100, num_jobs: 1}
  gallery: {num_right: 1, num_wrong: 2, num_references: 3, num_suspicious: 4, num_near_duplicates: 4}
""",
}


_BOOTSTRAPPED: list[Any] = []


def make_project(path: Path, environments: tuple[str, ...] = ("tiny",)) -> Path:
    """A copy of the project's configuration, with environments of the tiny kind and no data."""
    shutil.copytree(ROOT / "conf", path / "conf")
    shutil.copy(ROOT / "pyproject.toml", path)
    # Without it, Kedro sends usage data.
    shutil.copy(ROOT / ".telemetry", path)
    # Kedro asks for it; the package itself is installed.
    (path / "src").mkdir()
    for environment in environments:
        folder = path / "conf" / environment
        folder.mkdir()
        for name, text in TINY.items():
            (folder / name).write_text(text)
    return path


Kedro = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kedro() -> Kedro:
    """Run a `kedro` command in a project, in a process of its own."""

    def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(ROOT), *sys.path])
        variables = {**os.environ, "COLUMNS": "200", "PYTHONPATH": paths, **environment}
        command = [sys.executable, "-m", "kedro", *arguments]
        return subprocess.run(
            command, cwd=project, env=variables, capture_output=True, text=True, check=False
        )

    return run


def bootstrap(project: Path) -> Any:
    """Tell Kedro of the package, once in a process: it is the same in every project. Gives its metadata.

    The settings are found by looking up the module of each frame of the stack, half a second under pytest.
    """
    if not _BOOTSTRAPPED:
        handlers = logging.root.handlers.copy()
        # It changes the log of whatever loads it, as do processes in the tests of the learning library.
        from kedro.framework.startup import bootstrap_project

        _BOOTSTRAPPED.append(bootstrap_project(project))
        # Those of pytest, where a test is the first to get here.
        logging.root.handlers += [handler for handler in handlers if handler not in logging.root.handlers]
    return _BOOTSTRAPPED[0]._replace(project_path=project, source_dir=project / "src")


def run_session(project: Path, env: str = "tiny", **arguments: Any) -> str:
    """Run pipelines in this process; gives the run id."""
    bootstrap(project)
    from kedro.framework.project import settings

    runtime_params = arguments.pop("runtime_params", None)
    with settings.SESSION_CLASS.create(project, env=env, runtime_params=runtime_params) as session:
        session.run(**arguments)
        return str(session.session_id)


def read_catalog(project: Path, env: str = "tiny") -> Any:
    """The catalog as a notebook would have it."""
    bootstrap(project)
    from kedro.framework.project import settings

    with settings.SESSION_CLASS.create(project, env=env) as session:
        return session.load_context().catalog


def made_in(project: Path, run_id: str) -> set[str]:
    """The names of the artifacts of a run of the tiny experiment."""
    return {path.name.partition(".")[0] for path in project.glob(f"data/*/tiny/**/{run_id}/*")}


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The finished project and what its run has printed; of several workers, one makes it for all."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "finished"
    project, printed = folder / "project", folder / "printed.txt"
    with FileLock(f"{folder}.lock"):
        if not printed.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make_project(project)
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
                patch.setenv("SUPCON_RUN_ID", "2026-01-01")
                patch.setenv("COLUMNS", "200")
                run_session(project)
            printed.write_text(output.getvalue())
    return project, printed.read_text()


@pytest.fixture(scope="session")
def finished_project(_finished: tuple[Path, str]) -> Path:
    """A project in which everything has run once, under the run id `2026-01-01`; only to be read."""
    return _finished[0]


@pytest.fixture(scope="session")
def finished_output(_finished: tuple[Path, str]) -> str:
    """What the run of the finished project has printed."""
    return _finished[1]


@pytest.fixture(scope="session")
def finished_catalog(finished_project: Path) -> Any:
    """The catalog of the finished project; only to be read."""
    return read_catalog(finished_project)


def copy_project(project: Path, folder: Path) -> Path:
    """A copy of a project in a folder, to be changed."""
    return shutil.copytree(project, folder / "project", symlinks=True)


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, to be changed."""
    return copy_project(finished_project, tmp_path)
