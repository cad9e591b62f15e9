"""The package as others install it: a wheel, and folders without a project."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from supcon_pipeline import __version__
from tests.conftest import ROOT

# A training of seconds on the digits.
TINY = ",".join(
    [
        *("data_prep.image_size=8", "data_prep.test_fraction=0.85", "data_prep.validation_fraction=0.1"),
        *("stage1.schedule.num_epochs=1", "stage1.schedule.warmup_epochs=0"),
    ]
)
LOAD = """
from supcon_pipeline import load_encoder

print(*load_encoder().embed("{image}").shape)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy that has credentials as well."""
    source, made = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for name in ("conf", "src"):
        # What an editable installation has left there would be read again.
        left = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=left)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    (source / "conf/local/credentials.yml").write_text("secret: 1")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made), str(source))
    (path,) = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, which borrows its dependencies from this one."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    pip("--python", str(environment), "install", "--no-deps", str(wheel))
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    return environment / "bin"


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--no-input", *words], check=True)


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command in a folder does, without any path to the sources."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        words, cwd=folder, env={**environment, "COLUMNS": "200"}, capture_output=True, text=True, check=False
    )


def test_the_wheel_has_the_configuration_and_no_credentials(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("supcon_pipeline/") for name in archive.namelist()}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yml")}
    own = {name for name in files if not name.startswith("conf/local/")}
    assert {"conf/logging.yml", "conf/base/catalog.yml", "conf/images/parameters.yml"} <= own
    assert {name for name in names if name.startswith("conf/")} == own | {"conf/README.md"}
    assert {"template/README.md", "core/pages/templates/report.html"} <= names


def test_the_program_says_its_version_makes_projects_and_knows_its_experiments(
    installed: Path, tmp_path: Path
) -> None:
    program = installed / "supcon_pipeline"
    assert run(tmp_path, program, "--version").stdout == f"supcon_pipeline, version {__version__}\n"
    assert run(tmp_path, program, "init", "made").stdout.startswith("Made a project in made")
    (tmp_path / "empty").mkdir()
    assert "- stage1_swa\n" in run(tmp_path / "empty", program, "registry", "list").stdout
    refused = run(tmp_path / "empty", program, "run", "--env", "imags")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: env must be one of base, cifar10, ")
    assert (refused.stdout, refused.stderr.count("\n")) == ("", 1)


def test_an_empty_folder_is_trained_in_and_its_encoder_loaded(installed: Path, tmp_path: Path) -> None:
    program = installed / "supcon_pipeline"
    done = run(tmp_path, program, "run", "--pipelines", "data_prep,stage1,stage1_swa", "--params", TINY)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    # The log of the package, not that of Kedro.
    assert "Completed node: stage1.pretrain_encoder" in done.stdout
    assert "Loading data from" not in done.stdout
    assert "Kedro project" not in done.stdout + done.stderr
    _, _, following = done.stdout.partition("Next:\n")
    assert following.split()[:2] == ["supcon_pipeline", "run"]
    shown = run(tmp_path, program, "runs", "show", "2").stdout
    assert f"supcon_pipeline {__version__} as installed" in shown
    assert "supcon_pipeline run --pipelines data_prep,stage1,stage1_swa --params" in shown
    image = ROOT / "docs/pictures/embedding_map.png"
    loaded = run(tmp_path, installed / "python", "-c", LOAD.format(image=image))
    assert loaded.stdout == "1 256\n", loaded.stderr
