"""The program of the package, in folders that are no projects."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from supcon_pipeline import __version__
from supcon_pipeline.console import program
from supcon_pipeline.packaged import CONF, choose_log


def type_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(program, words)


def test_the_version_is_that_of_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = type_in(tmp_path, monkeypatch, "--version").output
    assert shown == f"supcon_pipeline, version {version('supcon_pipeline')}\n"
    assert version("supcon_pipeline") == __version__


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("run --env imags", "env must be one of base, cifar10, .*, got 'imags'; did you mean 'images'?"),
        ("runs list --env imags", "env must be one of base, .*, got 'imags'; did you mean 'images'?"),
        ("runs show none", "got 'none'; see them with: supcon_pipeline runs list"),
        ("run --load-versions encoder", "see the runs with: supcon_pipeline runs list"),
        ("run --pipelines index", "first type: supcon_pipeline run --pipelines "),
        ("run --pipelines indx", "got 'indx'; did you mean 'index'?"),
    ],
)
def test_a_mistake_is_one_line_with_a_command_that_works_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, line: str
) -> None:
    result = type_in(tmp_path, monkeypatch, *words.split())
    assert result.exit_code == 1
    (shown,) = result.output.strip().splitlines()
    assert shown.startswith("Error: ")
    before, _, after = line.partition(".*")
    assert before in shown
    assert after in shown


def test_a_folder_has_the_pipelines_of_the_package_and_no_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "- stage1_swa\n" in type_in(tmp_path, monkeypatch, "registry", "list").output
    assert type_in(tmp_path, monkeypatch, "runs", "list").output == "No runs yet; type: supcon_pipeline run\n"
    assert not list(tmp_path.iterdir())


def test_a_project_that_was_made_is_run_by_kedro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = type_in(tmp_path, monkeypatch, "init", "made")
    assert made.output == "Made a project in made; go there and type: kedro run\n"
    below = tmp_path / "made/conf/base"
    assert type_in(below, monkeypatch, "runs", "list").output == "No runs yet; type: kedro run\n"
    again = type_in(tmp_path, monkeypatch, "init", "made")
    assert again.output.startswith("Error: folder must be new or empty")


def test_the_log_is_that_of_the_package_where_the_folder_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = "KEDRO_LOGGING_CONFIG"
    monkeypatch.setenv(chosen, "mine.yml")
    monkeypatch.chdir(tmp_path)
    choose_log()
    assert os.environ[chosen] == "mine.yml"
    monkeypatch.delenv(chosen)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/logging.yml").touch()
    choose_log()
    assert chosen not in os.environ
    (tmp_path / "conf/logging.yml").unlink()
    choose_log()
    assert os.environ.pop(chosen) == str(CONF / "logging.yml")
