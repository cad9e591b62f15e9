from pathlib import Path

import pytest

from supcon_pipeline.commands import CommandError
from supcon_pipeline.packaged import CONF
from supcon_pipeline.projects import configuration_of, find_folder, prepare_folder
from tests.conftest import ROOT


def write_project(folder: Path, package: str) -> Path:
    (folder / "below").mkdir(parents=True)
    names = f'package_name = "{package}"\nproject_name = "p"\nkedro_init_version = "1.7.0"\n'
    (folder / "pyproject.toml").write_text(f"[tool.kedro]\n{names}")
    return folder


def test_below_a_project_the_folder_is_the_project(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", "supcon_pipeline")
    assert find_folder(project / "below") == find_folder(project) == project
    assert configuration_of(project) == project / "conf"


def test_outside_of_projects_a_folder_stands_for_itself_with_the_configuration_of_the_package(
    tmp_path: Path,
) -> None:
    assert find_folder(tmp_path) == tmp_path
    assert configuration_of(tmp_path) == CONF == ROOT / "conf"
    assert prepare_folder(tmp_path).project_path == tmp_path
    (tmp_path / "conf").mkdir()
    assert configuration_of(tmp_path) == tmp_path / "conf"


def test_a_project_of_another_package_is_not_run_in(tmp_path: Path) -> None:
    other = write_project(tmp_path / "other", "another")
    assert find_folder(other / "below") == other / "below"
    with pytest.raises(CommandError, match=r"another package, got .*/other of another; change to another"):
        find_folder(other)
