import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from kedro.framework.session import KedroServiceSession, KedroSession
from kedro.io import DatasetError

from supcon_pipeline.core.checksums import SUFFIX
from supcon_pipeline.pipeline_registry import register_pipelines
from supcon_pipeline.run_ids import as_run_id, is_generated
from tests.conftest import Kedro, bootstrap, copy_project, make_project, read_catalog, run_session

DATA = ("prepared_images", "samples", "dataset_card")


def versions(project: Path, name: str, env: str = "tiny") -> list[str]:
    return sorted(path.parent.name for path in project.glob(f"data/*/{env}/{name}/*/{name}"))


def test_a_single_node_runs_again(project: Path) -> None:
    run_id = run_session(project, node_names=["evaluation.score_features"])
    assert versions(project, "feature_metrics.json") == ["2026-01-01", run_id]
    assert versions(project, "embeddings.safetensors") == ["2026-01-01"]


@dataclass(frozen=True)
class NewEncoder:
    """The finished project after stage 1 from another seed, only to be read, and the runs that were made."""

    project: Path
    checkpoints: str
    encoder: str


@pytest.fixture(scope="module")
def new_encoder(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> NewEncoder:
    project = copy_project(finished_project, tmp_path_factory.mktemp("new_encoder"))
    checkpoints = run_session(project, pipeline_names=["stage1"], runtime_params={"seed": 1})
    encoder = run_session(project, node_names=["stage1_swa.average_checkpoints"])
    return NewEncoder(project, checkpoints, encoder)


def test_a_newer_encoder_is_not_passed_over(new_encoder: NewEncoder, tmp_path: Path) -> None:
    """After a new encoder, the old classifier is no longer part of the newest run, nor read in silence."""
    project, newest = copy_project(new_encoder.project, tmp_path), new_encoder.encoder
    assert versions(project, "encoder.safetensors") == ["2026-01-01", newest]
    with pytest.raises(click.ClickException) as refusal:
        run_session(project, node_names=["evaluation.predict_samples"])
    message = str(refusal.value)
    assert f"in run {newest}, which has a newer encoder than run 2026-01-01" in message
    finish = r"SUPCON_RUN_ID=(\S+) (?:\S+/)?kedro run --env tiny --pipelines stage2,stage2_swa,evaluation; "
    assert re.findall(finish, message) == [newest]
    assert message.endswith("add --load-versions encoder:2026-01-01")
    run_session(project, node_names=["evaluation.predict_samples"], load_versions={"encoder": "2026-01-01"})
    record = read_catalog(project).load("run_record")
    assert record["base"] == "2026-01-01"
    assert new_encoder.checkpoints not in record["base_artifacts"].values()


def test_a_notebook_sees_one_run_and_nothing_that_no_longer_belongs_to_it(
    new_encoder: NewEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = new_encoder.project
    catalog = read_catalog(project)
    assert catalog.load("encoder").metadata["run_id"] == catalog.load("run_record")["base"]
    assert catalog.load("run_record")["run_id"] == new_encoder.encoder
    assert not catalog.exists("metrics")
    monkeypatch.setenv("SUPCON_RUN_ID", "2026-01-01")
    catalog = read_catalog(project)
    assert catalog.load("encoder").metadata["run_id"] == catalog.load("metrics")["run_id"] == "2026-01-01"
    monkeypatch.setenv("SUPCON_RUN_ID", "2026-01-02")
    with pytest.raises(click.ClickException, match="must be a run of this experiment, got '2026-01-02'"):
        read_catalog(project)


def test_stage_2_after_a_new_encoder_reads_that_encoder(new_encoder: NewEncoder, tmp_path: Path) -> None:
    project = copy_project(new_encoder.project, tmp_path)
    run_session(project, pipeline_names=["stage2"])
    assert read_catalog(project).load("run_record")["base_artifacts"]["encoder"] == new_encoder.encoder


def test_a_classifier_of_another_encoder_is_refused(new_encoder: NewEncoder, tmp_path: Path) -> None:
    project = copy_project(new_encoder.project, tmp_path)
    pins = {"encoder": new_encoder.encoder, "classifier": "2026-01-01"}
    with pytest.raises(click.ClickException, match="encoder_hash of the classifier must be"):
        run_session(project, pipeline_names=["evaluation"], load_versions=pins)


def test_an_encoder_of_other_data_is_refused(project: Path) -> None:
    newest = run_session(project, pipeline_names=["data_prep"], runtime_params={"data_prep": {"seed": 3}})
    pins = dict.fromkeys(("prepared_images", "samples", "dataset_card"), newest)
    made_before = ("encoder", "classifier", "baseline_model", "published_embeddings")
    pins |= dict.fromkeys(made_before, "2026-01-01")
    with pytest.raises(click.ClickException, match="data_hash of the encoder must be"):
        run_session(project, pipeline_names=["evaluation"], load_versions=pins)


def test_a_baseline_that_had_fewer_epochs_is_called_another_budget(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = {"stage1": {"schedule": {"num_epochs": 3}}}
    again = ["stage1", "stage2", "swa", "evaluation"]
    run_session(project, pipeline_names=again, runtime_params=longer)
    assert "The baseline had a different budget: it was trained with another schedule.num_epochs" in " ".join(
        capsys.readouterr().out.split()
    )
    assert read_catalog(project).load("metrics")["baseline_differs"] == ["schedule.num_epochs"]


def test_a_version_chosen_by_hand_brings_its_whole_run(project: Path) -> None:
    before = read_catalog(project).load("metrics")
    again = ["stage1", "stage2", "swa", "evaluation"]
    newer = run_session(project, pipeline_names=again, runtime_params={"seed": 1})
    run_session(project, pipeline_names=["index"])
    assert read_catalog(project).load("embeddings").metadata["checkpoint"]["run_id"] == newer
    run_session(project, pipeline_names=["index"], load_versions={"encoder": "2026-01-01"})
    catalog = read_catalog(project)
    record = catalog.load("run_record")
    assert record["base"] == "2026-01-01"
    assert newer not in record["base_artifacts"].values()
    assert catalog.load("embeddings").metadata["checkpoint"]["run_id"] == "2026-01-01"
    run_id = run_session(project, pipeline_names=["evaluation"], load_versions={"encoder": "2026-01-01"})
    assert read_catalog(project).load("metrics") == {**before, "run_id": run_id}


def test_a_version_that_belongs_to_no_run_with_the_rest_takes_its_place_in_another(project: Path) -> None:
    # The same data again, which is another version of it.
    newest = run_session(project, pipeline_names=["data_prep"])
    chosen = dict.fromkeys(DATA, newest)
    run_session(project, pipeline_names=["stage2"], load_versions={**chosen, "encoder": "2026-01-01"})
    record = read_catalog(project).load("run_record")
    assert {name: record["base_artifacts"][name] for name in chosen} == chosen
    assert record["base_artifacts"]["encoder"] == "2026-01-01"
    assert "embeddings" not in record["base_artifacts"]


def test_a_version_that_was_made_from_other_data_is_refused_before_it_is_trained_on(project: Path) -> None:
    seeded = {"data_prep": {"seed": 3}}
    newest = run_session(project, pipeline_names=["data_prep"], runtime_params=seeded)
    readers = {"encoder": "stage2.train_linear_classifier"}
    readers["stage1_checkpoints"] = "stage1_swa.average_checkpoints"
    for name, node in readers.items():
        chosen = {**dict.fromkeys(DATA, newest), name: "2026-01-01"}
        with pytest.raises(
            click.ClickException,
            match=r"data_hash of the \w+ must be .*; type: kedro run --env tiny .*stage1",
        ):
            run_session(project, node_names=[node], load_versions=chosen)


def test_a_version_of_what_the_run_makes_is_refused(project: Path) -> None:
    with pytest.raises(click.ClickException, match="must be of what the run reads, got encoder, which it ma"):
        run_session(project, load_versions={"encoder": "2026-01-01"})
    assert len(versions(project, "run_record.json")) == 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"raw_images": "2026-01-01"},
            "load-versions must name artifacts of this project, got 'raw_images'",
        ),
        ({"encoder": "2020-01-01"}, "must name a run that made encoder, got '2020-01-01'"),
    ],
)
def test_a_version_that_is_not_there_is_refused(project: Path, chosen: dict[str, str], message: str) -> None:
    with pytest.raises(click.ClickException, match=message):
        run_session(project, pipeline_names=["evaluation"], load_versions=chosen)


def test_a_run_that_has_begun_reads_no_other_version(
    new_encoder: NewEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, other = copy_project(new_encoder.project, tmp_path), new_encoder.checkpoints
    monkeypatch.setenv("SUPCON_RUN_ID", "later")
    run_session(project, pipeline_names=["index"], load_versions={"encoder": "2026-01-01"})
    with pytest.raises(
        click.ClickException, match="stage1_checkpoints of run later must be that of 2026-01-01"
    ):
        run_session(project, pipeline_names=["lr_finder"], load_versions={"stage1_checkpoints": other})


def test_many_processes_share_a_run_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    # An id that sorts before every timestamp: "latest" must not decide.
    monkeypatch.setenv("SUPCON_RUN_ID", "0-shared")
    for name in ("data_prep", "stage1"):
        run_session(project, pipeline_names=[name])
    assert versions(project, "samples.parquet") == ["0-shared"]
    assert versions(project, "stage1_history.csv") == ["0-shared"]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose run `first`, which goes on under that id, has prepared its data."""
    project = make_project(tmp_path / "project")
    monkeypatch.setenv("SUPCON_RUN_ID", "first")
    run_session(project, pipeline_names=["data_prep"])
    return project


def artifact(project: Path, name: str) -> Path:
    paths = project.glob(f"data/*/tiny/{name}.*/first/{name}.*")
    (path,) = (path for path in paths if path.suffix != SUFFIX)
    return path


def outcomes(task: dict[str, Any]) -> dict[str, str]:
    return {name: node["outcome"] for name, node in task["nodes"].items()}


@pytest.mark.parametrize("only_missing_outputs", [False, True])
def test_a_task_that_is_tried_again_keeps_what_is_complete(
    prepared: Path, only_missing_outputs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stamp = artifact(prepared, "samples").stat().st_mtime_ns
    artifact(prepared, "dataset_card").unlink()
    run_session(prepared, pipeline_names=["data_prep"], only_missing_outputs=only_missing_outputs)
    assert artifact(prepared, "samples").stat().st_mtime_ns == stamp
    assert "3 of 4 nodes are done, which leaves data_prep.describe_dataset" in caplog.text
    run_session(prepared, pipeline_names=["data_prep"], only_missing_outputs=only_missing_outputs)
    assert "Nothing to run: run first has all of this already" in caplog.text
    record = read_catalog(prepared).load("run_record")
    assert record["outcome"] == "completed"
    assert list(outcomes(record["tasks"][1]).values()) == ["kept", "kept", "kept", "completed"]


@pytest.mark.parametrize("only_missing_outputs", [False, True])
def test_a_node_that_was_stopped_between_two_outputs_runs_again(
    prepared: Path, only_missing_outputs: bool
) -> None:
    before = read_catalog(prepared).load("samples")
    stamps = {name: artifact(prepared, name).stat().st_mtime_ns for name in ("ignored_files", "samples")}
    artifact(prepared, "packed_samples").unlink()
    run_session(prepared, pipeline_names=["data_prep"], only_missing_outputs=only_missing_outputs)
    assert all(artifact(prepared, name).stat().st_mtime_ns > stamp for name, stamp in stamps.items())
    assert read_catalog(prepared).load("samples").equals(before)


@pytest.mark.parametrize("only_missing_outputs", [False, True])
def test_what_was_made_with_other_parameters_is_not_kept_in_silence(
    prepared: Path, only_missing_outputs: bool
) -> None:
    with pytest.raises(
        click.ClickException,
        match=r"data_prep.test_fraction must be 0.2, with which run first made .*, got 0.3; choose another",
    ):
        run_session(
            prepared,
            pipeline_names=["data_prep"],
            runtime_params={"data_prep": {"test_fraction": 0.3}},
            only_missing_outputs=only_missing_outputs,
        )


def test_every_kind_of_session_takes_the_id_of_an_orchestrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kedro-airflow, `kedro server` and scripts start them, which go around our own session."""
    project = make_project(tmp_path / "project")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "manual__2026-01-01T00:00:00+00:00")
    bootstrap(project)
    with KedroSession.create(project, env="tiny") as session:
        session.run(pipeline_names=["data_prep"], node_names=["data_prep.pack_images"])
    with KedroServiceSession.create(project_path=project, env="tiny") as service:
        service.run(pipeline_names=["data_prep"], node_names=["data_prep.find_near_duplicates"])
    run_session(project, pipeline_names=["data_prep"])
    (run_id,) = versions(project, "run_record.json")
    assert run_id == as_run_id("manual__2026-01-01T00:00:00+00:00")
    for name in ("prepared_images.npy", "samples.parquet", "dataset_card.json"):
        assert versions(project, name) == [run_id]
    record = read_catalog(project).load("run_record")
    assert [list(outcomes(task).values()) for task in record["tasks"]] == [
        ["completed"],
        ["completed"],
        ["kept", "kept", "completed", "completed"],
    ]


def test_without_an_id_each_run_of_a_service_has_its_own(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    bootstrap(project)
    with KedroServiceSession.create(project_path=project, env="tiny") as service:
        service.run(pipeline_names=["data_prep"], runtime_params={"seed": 1})
        service.run(run_id="mine", pipeline_names=["data_prep"])
        with pytest.raises(click.ClickException, match=r"^run_id must start with a letter .* got '../mine'"):
            service.run(run_id="../mine", pipeline_names=["data_prep"])
    first, second = versions(project, "dataset_card.json")
    assert is_generated(first)
    assert second == "mine"
    record = read_catalog(project).load("run_record")
    assert (record["run_id"], record["parameters"]["seed"]) == ("mine", 0)


def import_failed() -> Exception:
    """What modules in C++ raise where a stop meets them while they are imported."""
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "raised", "outcome"),
    [
        (RuntimeError, RuntimeError, "failed"),
        (KeyboardInterrupt, KeyboardInterrupt, "interrupted"),
        (import_failed, KeyboardInterrupt, "interrupted"),
    ],
)
def test_a_record_says_how_its_sessions_ended_and_what_they_were_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], BaseException],
    raised: type[BaseException],
    outcome: str,
) -> None:
    def stop(*_: Any) -> None:
        raise error()

    project = make_project(tmp_path / "project")
    monkeypatch.setenv("SUPCON_RUN_ID", "first")
    asked: dict[str, Any] = {"pipeline_names": ["data_prep"], "runtime_params": {"data_prep": {"seed": 3}}}
    with monkeypatch.context() as patch:
        patch.setattr(register_pipelines()["data_prep"].nodes[-1], "func", stop)
        with pytest.raises(raised):
            run_session(project, **asked)
    run_session(project, **asked)
    record = read_catalog(project).load("run_record")
    assert (record["outcome"], record["number"]) == ("completed", 1)
    stopped, done = record["tasks"]
    assert (stopped["outcome"], done["outcome"]) == (outcome, "completed")
    assert list(outcomes(stopped).values()) == ["completed", "completed", "completed", outcome]
    assert list(outcomes(done).values()) == ["kept", "kept", "kept", "completed"]
    assert done["given"] == {"data_prep": {"seed": 3}}
    assert done["parameters"]["data_prep"]["seed"] == 3
    assert done["selection"] == {"pipeline_names": ["data_prep"]}
    assert done["env"] == "tiny"
    assert done["device"] is not None
    assert 0 < stopped["nodes"]["data_prep.pack_images"]["seconds"] < 60
    assert done["started"] < done["ended"] == record["ended"]


def test_only_missing_outputs_of_no_run_is_refused(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPCON_RUN_ID")
    with pytest.raises(click.ClickException, match="put SUPCON_RUN_ID=first before the command"):
        run_session(prepared, pipeline_names=["data_prep"], only_missing_outputs=True)


def test_a_pipeline_without_its_input_says_what_to_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    with pytest.raises(click.ClickException, match=r"got none; first type: .*data_prep"):
        run_session(project, pipeline_names=["evaluation"])


def test_a_run_id_that_is_no_folder_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPCON_RUN_ID", "../elsewhere")
    with pytest.raises(click.ClickException, match="SUPCON_RUN_ID must start with a letter"):
        run_session(make_project(tmp_path / "project"))


def test_two_environments_side_by_side_never_read_each_other(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", ("tiny", "other"))
    run_session(project, env="tiny", pipeline_names=["data_prep"])
    other = run_session(project, env="other", pipeline_names=["data_prep"], runtime_params={"seed": 7})
    tiny = run_session(project, env="tiny", pipeline_names=["stage1"])
    assert versions(project, "stage1_checkpoints.safetensors") == [tiny]
    record = read_catalog(project, "tiny").load("run_record")
    assert other not in record["base_artifacts"].values()
    with pytest.raises(DatasetError):
        read_catalog(project, "other").load("stage1_history")


def test_a_run_says_at_its_end_how_good_it_is_where_things_are_and_what_is_next(finished_output: str) -> None:
    for word in (
        "embedding precision@1",
        "95 % interval",
        "metrics.json",
        "report.html",
        "embedding_map.png",
        "kedro viz run",
    ):
        assert word in finished_output


def test_the_registry_is_listed_without_torch(project: Path, kedro: Kedro) -> None:
    (project / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = kedro(project, "registry", "list", PYTHONPATH=str(project))
    assert done.returncode == 0, done.stderr
    assert "data_prep" in done.stdout
