"""The Dockerfile and what it is built from; without an engine, as none runs everywhere."""

import fnmatch
import re
import shlex
import subprocess
import tomllib
from pathlib import PurePosixPath

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile, each with its arguments on one line."""
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    stages: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, lines):
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, re.sub(r"\s+", " ", arguments)))
    return stages[1:]


def all_of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [arguments for instruction, arguments in stage if instruction == name]


def is_ignored(path: str) -> bool:
    """Whether the engine leaves a file out: the last pattern counts that fits it or a folder it is in."""
    ignored = False
    places = [path, *(str(parent) for parent in PurePosixPath(path).parents if parent.name)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(_fits(place, pattern) for place in places):
            ignored = not line.startswith("!")
    return ignored


def _fits(place: str, pattern: str) -> bool:
    parts, patterns = place.split("/"), pattern.split("/")
    if patterns[0] == "**":
        patterns = ["*"] * (len(parts) - len(patterns) + 1) + patterns[1:]
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def copied() -> list[str]:
    """What the build stage copies, in that order."""
    return [
        source
        for arguments in all_of(instructions()[0], "COPY")
        for source in shlex.split(arguments)[:-1]
        if not source.startswith("--")
    ]


def tracked() -> list[str]:
    done = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", ".venv/bin/python", ".env", "build/lib/a.py", "data/01_raw/a.png"),
        *("conf/local/credentials.yml", "src/supcon_pipeline/__pycache__/cli.pyc", "tests/conftest.py"),
        *("src/supcon_pipeline.egg-info/PKG-INFO", "notebooks/tsne.ipynb"),
    ],
)
def test_an_image_has_nothing_of_the_machine_it_was_built_on(path: str) -> None:
    assert is_ignored(path)


def test_all_that_is_copied_is_in_the_repository_and_nothing_else_is_sent() -> None:
    sent = {path for path in tracked() if not is_ignored(path)}
    taken = {path for path in sent if any(path == name or path.startswith(f"{name}/") for name in copied())}
    assert taken == sent
    for name in copied():
        assert any(path == name or path.startswith(f"{name}/") for path in sent), name


def test_all_that_the_package_is_built_from_is_copied() -> None:
    assert {"pyproject.toml", PROJECT["project"]["readme"], "src"} <= set(copied())
    links = [path for path in (ROOT / "src").rglob("*") if path.is_symlink()]
    assert links
    for link in links:
        assert link.resolve().relative_to(ROOT).parts[0] in copied()
    sources = [path for path in tracked() if path.startswith(("src/", "conf/"))]
    assert [path for path in sources if is_ignored(path)] == ["conf/local/.gitkeep"]


def test_libraries_are_installed_before_the_sources_are_copied_and_by_the_lock() -> None:
    build = instructions()[0]
    names = [f"{name} {arguments}" for name, arguments in build]
    (installs,) = (index for index, line in enumerate(names) if "--requirement pyproject.toml" in line)
    assert "--constraint requirements.lock" in names[installs]
    before = [line for line in names[:installs] if line.startswith("COPY")]
    assert before == ["COPY requirements.lock pyproject.toml ./"]
    extras = set(re.findall(r"--extra (\w+)", names[installs]))
    # MLflow wants other versions than the lock has.
    others = {"dev", "dev-extras", "mlflow", "s3", "sweep"}
    assert extras == PROJECT["project"]["optional-dependencies"].keys() - others


def test_only_the_stage_that_builds_has_compilers_and_the_last_one_runs_as_no_root() -> None:
    build, last = instructions()
    assert all(name in " ".join(all_of(build, "RUN")) for name in ("cmake", "g++"))
    assert not any(name in " ".join(all_of(last, "RUN")) for name in ("cmake", "g++"))
    names = [name for name, _ in last]
    (user,) = all_of(last, "USER")
    assert f" {user} " in " ".join(all_of(last, "RUN"))
    assert "RUN" not in names[names.index("USER") :]
    (folder,), (volumes,) = all_of(last, "WORKDIR"), all_of(last, "VOLUME")
    assert volumes == f'["{folder}/conf", "{folder}/data"]'
    assert all_of(last, "HEALTHCHECK")[0].endswith('CMD ["kedro", "registry", "list"]')


def test_the_lock_is_read_by_every_installer_and_the_argument_for_cmake_is_the_same_for_all() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = [Requirement(line) for line in lines]
    assert all(str(requirement.specifier).startswith("==") for requirement in locked)
    assert "multicoretsne" in [requirement.name for requirement in locked]
    settings = PROJECT["tool"]["uv"]["config-settings-package"]["multicoretsne"]
    for name in ("Makefile", "docs/platforms.md"):
        said = re.findall(r'MulticoreTSNE --config-settings="(.*?)"', (ROOT / name).read_text())
        assert set(said) == {"=".join((key, " ".join(words))) for key, words in settings.items()}, name
