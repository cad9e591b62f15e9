import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from kedro.io import DataCatalog, DatasetError, MemoryDataset, Version
from kedro.pipeline import Pipeline

from supcon_pipeline import hooks
from supcon_pipeline.commands import CommandError, find_refusal
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.data import DataPrepParameters
from supcon_pipeline.core.training.hosts import Hosts
from supcon_pipeline.datasets.run_record import RunRecordDataset
from supcon_pipeline.hooks import ParameterHooks, RunHooks
from tests.conftest import make_project, run_session


def _wrapped(refusal: InputError) -> Exception:
    try:
        raise DatasetError("Failed while loading") from refusal
    except DatasetError as error:
        return error


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_the_command_of_a_refusal_names_the_experiment_in_every_kind_of_session(
    is_wrapped: bool, tmp_path: Path
) -> None:
    """The hook is all that scripts, orchestrators and `kedro run` have in common."""
    hooks = RunHooks()
    hooks.project_path = tmp_path
    (tmp_path / "pyproject.toml").write_text("[tool.kedro]")
    refusal = InputError("index must be there, got none; type: kedro run --pipelines index")
    error = _wrapped(refusal) if is_wrapped else refusal
    hooks.on_pipeline_error(error=error, run_params={"env": "it is"}, catalog=DataCatalog())
    assert str(find_refusal(error)).endswith("type: kedro run --env 'it is' --pipelines index")


def test_the_command_of_a_refusal_is_that_of_the_package_outside_of_a_project(tmp_path: Path) -> None:
    hooks = RunHooks()
    hooks.project_path = tmp_path
    refusal = InputError("index must be there, got none; type: kedro run --pipelines index")
    hooks.on_pipeline_error(error=refusal, run_params={}, catalog=DataCatalog())
    assert str(refusal).endswith("type: supcon_pipeline run --pipelines index")


def test_an_error_that_is_no_refusal_stays_as_it_is() -> None:
    error = ValueError("kedro run")
    RunHooks().on_pipeline_error(error=error, run_params={"env": "tiny"}, catalog=DataCatalog())
    assert str(error) == "kedro run"


# The program `kedro` loads the commands of a plugin wherever it is installed.
@pytest.mark.parametrize(
    ("modules", "is_dagster"),
    [([], False), (["kedro_dagster"], True), (["kedro_dagster", "kedro_dagster.cli"], False)],
)
def test_dagster_is_given_plain_parameters_and_nodes_are_given_typed_ones(
    modules: list[str], is_dagster: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "kedro_dagster", raising=False)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    fractions = {"validation_fraction": 0.2, "test_fraction": 0.2}
    counts = {"image_size": 8, "num_channels": 3, "seed": 0, "num_workers": 0, "max_rejected": 0}
    values = {**fractions, **counts, "crop": "pad", "on_leakage": "refuse", "near_duplicate_similarity": None}
    parameters = DataPrepParameters.model_validate(values)
    catalog = DataCatalog({"params:data_prep": MemoryDataset(parameters)})
    ParameterHooks().after_catalog_created(catalog=catalog, save_version=None)
    given = catalog.load("params:data_prep")
    assert isinstance(given, dict) == is_dagster
    assert "Replacing dataset" not in caplog.text
    inputs = {"params:data_prep": given}
    ParameterHooks().before_node_run(inputs=inputs)
    assert inputs["params:data_prep"] == parameters


def test_a_run_whose_nodes_another_process_has_begun_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, list[str], str]] = []

    def refuse(*arguments: Any) -> None:
        asked.append(arguments)  # type: ignore[arg-type]
        raise InputError("run 1 must be made by one process at a time, got process 12")

    monkeypatch.setattr(hooks, "Claim", refuse)
    monkeypatch.setenv("SUPCON_RUN_ID", "1")
    project = make_project(tmp_path / "project")
    with pytest.raises(click.ClickException, match=r"^run 1 must be made by one process at a time"):
        run_session(project, pipeline_names=["data_prep"])
    [(place, names, kind)] = asked
    assert (place, kind) == (project / "data/08_reporting/tiny/run_record.json", "run")
    assert "1/data_prep.pack_images" in names
    assert not (project / "data").exists()


def test_projects_whose_artifacts_lie_together_know_of_one_another() -> None:
    def place(root: str) -> Path:
        record = RunRecordDataset(filepath=f"{root}/run_record.json", version=Version(None, "1"))
        return hooks._shared_place(record)

    assert place("/disk/data") == Path("/disk/data/run_record.json")
    assert place("memory:///bucket") == place("memory:///bucket")
    assert place("memory:///bucket") not in (place("/bucket"), place("memory:///other"))


def test_a_mistake_in_the_form_of_a_job_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kedro_dagster", ModuleType("kedro_dagster"))
    with pytest.raises(CommandError, match=r"^data_prep.image_size must be .*, got 'big'"):
        ParameterHooks().before_node_run(inputs={"params:data_prep": {"image_size": "big"}})


def test_a_session_that_is_refused_before_its_first_node_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def begin() -> None:
        with hooks._claiming(tmp_path, ["r/a"]):
            assert list(tmp_path.rglob("*.json"))
            raise InputError("encoder must be in a run, got none")

    with pytest.raises(InputError):
        begin()
    assert not list(tmp_path.rglob("*.json"))


def test_of_several_hosts_the_first_alone_runs_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from supcon_pipeline.core.training import launching

    project, followed = make_project(tmp_path / "project"), []
    monkeypatch.setattr(launching, "follow", followed.append)
    given = {"SUPCON_HOSTS": "2", "SUPCON_HOST": "1", "SUPCON_RENDEZVOUS": "first:29500"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run_session(project, pipeline_names=["data_prep"])
    assert followed == [Hosts(2, 1, "first", 29500)]
    assert not (project / "data").exists()


def test_a_session_that_meets_no_other_host_does_not_run_as_if_it_were_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUPCON_HOSTS", "2")
    monkeypatch.setenv("SUPCON_HOST", "0")
    monkeypatch.setenv("SUPCON_RENDEZVOUS", "first:29500")
    with pytest.raises(InputError, match=r"SUPCON_HOSTS must be 1 .*, got 2; type: unset SUPCON_HOSTS"):
        RunHooks().before_pipeline_run(run_params={}, pipeline=Pipeline([]), catalog=DataCatalog())
