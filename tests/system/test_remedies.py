"""What refusals say to type is typed here, and works."""

import shlex
from pathlib import Path

import click
import pytest
from kedro.framework.cli.cli import KedroCLI

from tests.conftest import make_project, read_catalog

FAST = "stage1.schedule.num_epochs=1,stage1.schedule.warmup_epochs=0"


class Shell:
    """Runs commands in a project as a shell would, in this process."""

    def __init__(self, project: Path, monkeypatch: pytest.MonkeyPatch):
        self.project, self.monkeypatch = project, monkeypatch

    def type(self, command: str) -> None:
        words = shlex.split(command)
        with self.monkeypatch.context() as patch:
            patch.chdir(self.project)
            while "=" in words[0]:
                patch.setenv(*words.pop(0).split("=", 1))
            assert words.pop(0) == "kedro"
            KedroCLI(self.project).main(words, standalone_mode=False)

    def refusal(self, command: str) -> str:
        with pytest.raises(click.ClickException) as error:
            self.type(command)
        assert "\n" not in error.value.message
        return str(error.value.message)

    def remedy(self, command: str) -> str:
        """The command that the refusal of another ends with."""
        return self.refusal(command).rpartition("type: ")[2]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(make_project(tmp_path / "project", ("tiny", "it is")), monkeypatch)


def test_an_empty_project_names_all_pipelines_that_are_missing_in_the_order_of_the_data(shell: Shell) -> None:
    remedy = shell.remedy("kedro run --env tiny --pipelines evaluation")
    pipelines = remedy.removeprefix("kedro run --env tiny --pipelines ").split(",")
    assert sorted(pipelines) == [
        *("baseline", "baseline_swa", "data_prep", "published"),
        *("stage1", "stage1_swa", "stage2", "stage2_swa"),
    ]
    for earlier, later in (("data_prep", "baseline"), ("stage1", "stage1_swa"), ("stage1_swa", "stage2")):
        assert pipelines.index(earlier) < pipelines.index(later)


def test_what_is_missing_is_made_by_the_command_of_the_refusal(shell: Shell) -> None:
    command = f"kedro run --env 'it is' --pipelines stage1_swa --params {FAST}"
    remedy = shell.remedy(command)
    assert remedy == f"kedro run --env 'it is' --pipelines data_prep,stage1 --params {FAST}"
    shell.type(remedy)
    shell.type(command)
    run = read_catalog(shell.project, "it is").load("run_record")["run_id"]

    trained = f"kedro run --env 'it is' --params {FAST} --load-versions encoder:{run} --pipelines "
    remedy = shell.remedy(f"{trained}stage1,stage1_swa,stage2")
    assert f"--pipelines stage2 --params {FAST} --load-versions encoder:{run}" in remedy
    shell.type(remedy)

    unmade = f"kedro run --env 'it is' --pipelines stage2_swa --load-versions encoder:{run}0"
    assert shell.refusal(unmade).endswith(f"did you mean '{run}'?")
    shell.type(unmade.replace(f"{run}0", run))


def test_a_run_with_an_id_is_completed_by_the_commands_of_its_refusals(shell: Shell) -> None:
    shell.type("SUPCON_RUN_ID=r1 kedro run --env tiny --pipelines data_prep")
    command = f"SUPCON_RUN_ID=r1 kedro run --env tiny --pipelines stage1_swa --params {FAST}"
    remedy = shell.remedy(command)
    assert remedy == f"SUPCON_RUN_ID=r1 kedro run --env tiny --pipelines stage1 --params {FAST}"
    shell.type(remedy)
    shell.type(command)
    # What is there is kept, with the flag or without.
    shell.type(command)
    shell.type(f"{command} --only-missing-outputs")
    shell.type(command.replace("r1", "r2"))
    assert read_catalog(shell.project).load("encoder").metadata["run_id"] == "r1"
