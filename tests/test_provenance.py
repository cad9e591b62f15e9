import subprocess
import sys
from pathlib import Path

import pytest

from supcon_pipeline import provenance
from supcon_pipeline.provenance import describe_commit, package_versions, typed_command


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def make_project(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.kedro]")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    make_project(tmp_path)
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_is_named_with_changes(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert describe_commit(repository) == (commit, None)
    (repository / "file").write_text("2")
    assert describe_commit(repository) == (f"{commit}+changes", None)


def test_a_repository_of_somebody_else_is_read(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    # What git itself takes for a folder of another owner.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "describe", "--always")
    assert describe_commit(repository) == (commit, None)


def test_no_repository_and_no_git_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path)
    assert describe_commit(tmp_path) == (None, "not under version control")
    git(tmp_path, "init", "-q")
    commit, reason = describe_commit(tmp_path)
    assert commit is None
    assert str(reason).startswith("unknown: git refuses (")
    monkeypatch.setenv("PATH", "")
    assert describe_commit(tmp_path) == (None, "unknown: git cannot be run (No such file or directory)")


def test_outside_of_a_project_the_code_is_that_of_the_installed_version(repository: Path) -> None:
    # The repository has other code.
    (repository / "pyproject.toml").unlink()
    version = package_versions()["supcon_pipeline"]
    assert describe_commit(repository) == (None, f"supcon_pipeline {version} as installed")


def test_the_own_version_and_those_of_what_it_depends_on_are_recorded() -> None:
    versions = package_versions()
    assert {"python", "supcon_pipeline", "kedro", "torch", "numpy"} <= versions.keys()
    assert "pytest" not in versions
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_command_is_quoted_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/kedro", "run", "--env", "it is"])
    assert typed_command() == "kedro run --env 'it is'"
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/supcon_pipeline", "run"])
    assert typed_command() == "supcon_pipeline run"
    monkeypatch.setattr(sys, "argv", ["/somewhere/kedro/__main__.py", "run"])
    assert typed_command() == "python -m kedro run"
    monkeypatch.setattr(sys, "argv", ["python -m kedro", "run"])
    assert typed_command() == "python -m kedro run"
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    assert typed_command() == "scripts/train.py"


def test_without_torch_no_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert provenance.describe_device() == (None, None)
