import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.cli.cli import KedroCLI

from supcon_pipeline import new_project
from supcon_pipeline.commands import CommandError
from supcon_pipeline.new_project import write_project
from supcon_pipeline.packaged import CONF


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_has_all_experiments_and_nothing_of_the_machine_it_was_made_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / "local").mkdir(exist_ok=True)
    (conf / "local/credentials.yml").write_text("secret: 1")
    monkeypatch.setattr(new_project, "CONF", conf)
    write_project(tmp_path / "made")
    own = {name for name in files_in(conf) if not name.startswith("local/")}
    assert {"base/catalog.yml", "images/parameters.yml", "logging.yml"} <= own
    others = {"README.md", "pyproject.toml", ".gitignore", ".telemetry", "data/.gitkeep", "src/.gitkeep"}
    assert files_in(tmp_path / "made") == {f"conf/{name}" for name in own} | others | {"conf/local/.gitkeep"}
    assert (tmp_path / "made/conf/base/catalog.yml").read_bytes() == (conf / "base/catalog.yml").read_bytes()


def test_kedro_takes_it_for_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    for words, printed in ((["registry", "list"], "- stage1_swa"), (["runs", "list"], "type: kedro run")):
        with pytest.raises(SystemExit) as ended:
            KedroCLI(tmp_path / "made").main(words)
        assert ended.value.code == 0
        assert printed in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["plain", 'with "quotes" and \\', "{name}", "\N{CJK UNIFIED IDEOGRAPH-732B}"]
)
def test_the_project_is_called_as_its_folder_is(tmp_path: Path, name: str) -> None:
    write_project(tmp_path / name)
    read = tomllib.loads((tmp_path / name / "pyproject.toml").read_text("utf-8"))
    assert read["tool"]["kedro"]["project_name"] == name
    assert (tmp_path / name / "README.md").read_text("utf-8").startswith(f"# {name}\n")


@pytest.mark.parametrize("name", [".git", "notes.txt"])
def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CommandError, match=rf"^folder must be new or empty, got {tmp_path} with {name}; "):
        write_project(tmp_path)
    assert files_in(tmp_path) == {name}


@pytest.mark.parametrize(("name", "message"), [("file/below", "folders only"), ("a[1]", r"no \*, \? or \[")])
def test_a_folder_that_cannot_be_is_refused_in_one_line(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=message) as refused:
        write_project(tmp_path / name)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("last", ["conf", "pyproject.toml"])
@pytest.mark.parametrize("is_new", [True, False])
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool, last: str
) -> None:
    def rename(path: Path, target: Path) -> Any:
        if path.name == last:
            raise KeyboardInterrupt
        return shutil.move(path, target)

    folder = tmp_path / "made"
    if not is_new:
        folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            write_project(folder)
    assert folder.exists() != is_new
    assert not is_new or not list(tmp_path.iterdir())
    write_project(folder)


def test_what_a_killed_process_had_begun_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".unfinished/conf").mkdir(parents=True)
    (tmp_path / ".unfinished/conf/half.yml").touch()
    write_project(tmp_path)
    assert "conf/half.yml" not in files_in(tmp_path)
    assert not (tmp_path / ".unfinished").exists()
