import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import click
import numpy as np
import pytest

from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset
from supcon_pipeline.run_values import RunValues, flat_parameters
from supcon_pipeline.runs import RunBook
from tests.conftest import copy_project, make_project, read_catalog, run_session
from tests.tiny import write_digits

needs_mlflow = pytest.mark.skipif(not find_spec("kedro_mlflow"), reason="needs the extra mlflow")
RUN_ID = "2026-01-01"


def _track(project: Path, text: str = "") -> Path:
    """Let the runs of a project go to MLflow."""
    (project / "conf/tiny/mlflow.yml").write_text(text)
    return project


def _runs(project: Path) -> list[Any]:
    """What MLflow has of a project, read by a client of its own."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/data/mlflow/mlflow.db")
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


class Tracked(NamedTuple):
    project: Path
    client: Any
    run: Any


@pytest.fixture(scope="module")
def tracked(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """The finished run, gone on with, which makes nothing again and tells MLflow of all."""
    from mlflow import MlflowClient

    # As `kedro mlflow init` writes it.
    template = Path(find_spec("kedro_mlflow").origin).with_name("template") / "project" / "mlflow.yml"  # type: ignore[union-attr, arg-type]
    setting = template.read_text().replace("{{ python_package }}", "supcon_pipeline")
    project = _track(copy_project(finished_project, tmp_path_factory.mktemp("tracked")), setting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPCON_RUN_ID", RUN_ID)
        run_session(project)
    [run] = _runs(project)
    return Tracked(project, MlflowClient(f"sqlite:///{project}/data/mlflow/mlflow.db"), run)


@pytest.fixture
def project(tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project whose run goes on with the pipeline `index`."""
    copied = copy_project(tracked.project, tmp_path)
    monkeypatch.setenv("SUPCON_RUN_ID", RUN_ID)
    for path in copied.glob(f"data/06_models/tiny/train_index*/{RUN_ID}"):
        shutil.rmtree(path)
    return copied


def test_without_the_extra_nothing_of_mlflow_is_loaded() -> None:
    code = """
import sys
sys.modules["kedro_mlflow"] = None
from supcon_pipeline import settings
import supcon_pipeline.hooks, supcon_pipeline.pipeline_registry
print(sorted(name for name in sys.modules if "mlflow" in name), len(settings.HOOKS))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['kedro_mlflow'] 3"


@needs_mlflow
def test_parameters_are_those_of_the_record_each_by_its_name(tracked: Tracked) -> None:
    record = read_catalog(tracked.project).load("run_record")
    assert tracked.run.data.params == flat_parameters(record["parameters"])
    assert tracked.run.data.params["stage1.loss.temperature"] == "0.1"


@needs_mlflow
def test_metrics_and_curves_are_those_of_the_artifacts(tracked: Tracked) -> None:
    from supcon_pipeline.pipeline_registry import whole_graph

    catalog = read_catalog(tracked.project)
    expected: dict[str, dict[int, float]] = {}
    for name, value, step in RunValues(RunBook(catalog, whole_graph()), RUN_ID).points():
        expected.setdefault(name, {})[step] = value
    assert tracked.run.data.metrics.keys() == expected.keys()
    for name, curve in expected.items():
        history = tracked.client.get_metric_history(tracked.run.info.run_id, name)
        assert sorted((point.step, point.value) for point in history) == sorted(curve.items()), name
    losses = catalog.load("stage1_history").set_index("epoch")["loss"]
    assert expected["stage1/loss"] == losses.to_dict()
    assert expected["classifier.accuracy"] == {0: catalog.load("metrics")["classifier"]["accuracy"]}


@needs_mlflow
def test_pages_and_pictures_are_artifacts_as_they_were_saved(tracked: Tracked, tmp_path: Path) -> None:
    names = {"report.html", "embedding_map.png", "training_curves.png", "metrics.json"}
    folder = Path(tracked.client.download_artifacts(tracked.run.info.run_id, "", str(tmp_path)))
    assert names <= {path.name for path in folder.iterdir()}
    for name in names - {"metrics.json"}:
        [saved] = tracked.project.glob(f"data/08_reporting/tiny/{name}/{RUN_ID}/{name}")
        assert (folder / name).read_bytes() == saved.read_bytes()


@needs_mlflow
def test_a_run_is_found_by_its_id_its_experiment_and_its_data(tracked: Tracked) -> None:
    from mlflow import MlflowClient

    data_hash = read_catalog(tracked.project).load("dataset_card")["data_hash"]
    query = f"tags.run_id = '{RUN_ID}' and tags.experiment = 'tiny' and tags.data_hash = '{data_hash}'"
    client: MlflowClient = tracked.client
    [found] = client.search_runs([tracked.run.info.experiment_id], query)
    assert (found.info.run_name, found.info.status) == (RUN_ID, "FINISHED")
    assert client.get_experiment(found.info.experiment_id).name == "supcon_pipeline"


@needs_mlflow
def test_the_model_embeds_as_the_encoder_of_the_run(tracked: Tracked, tmp_path: Path) -> None:
    import mlflow

    from supcon_pipeline import load_encoder

    images = [path.read_bytes() for path in write_digits(tmp_path)]
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tracked.project}/data/mlflow/mlflow.db")
    model = mlflow.pyfunc.load_model(f"runs:/{tracked.run.info.run_id}/encoder")
    mlflow.set_tracking_uri(before)
    expected = load_encoder(tracked.project, "tiny", RUN_ID).embed(images)
    np.testing.assert_array_equal(model.predict(images), expected)


@needs_mlflow
def test_a_run_that_fails_and_goes_on_is_one_run_of_mlflow_with_its_last_parameters(
    tracked: Tracked, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of the program")

    with monkeypatch.context() as patch:
        patch.setattr(NamedTensorsDataset, "read", fail)
        with pytest.raises(Exception, match="a fault of the program"):
            run_session(project, pipeline_names=["index"])
    [failed] = _runs(project)
    assert (failed.info.status, failed.info.run_id) == ("FAILED", tracked.run.info.run_id)
    run_session(project, pipeline_names=["index"], runtime_params={"index": {"num_queries": 17}})
    [run] = _runs(project)
    assert (run.info.status, run.data.params["index.num_queries"]) == ("FINISHED", "17")
    assert run.data.metrics == failed.data.metrics == tracked.run.data.metrics


@needs_mlflow
@pytest.mark.parametrize(
    ("name", "value", "is_new"),
    [
        ("stage1.optimizer.lr", "0.2", True),
        ("stage1.optimizer.lr", "0.1", False),
        ("stage1.loader.num_workers", "4", False),
        ("stage2.optimizer.lr", "0.2", False),
    ],
)
def test_a_parameter_that_only_costs_time_or_was_not_given_makes_no_new_run(
    name: str, value: str, is_new: bool
) -> None:
    from supcon_pipeline.mlflow_hooks import _differs

    held = {"stage1.optimizer.lr": "0.1", "stage1.loader.num_workers": "0"}
    run: Any = SimpleNamespace(data=SimpleNamespace(params=held))
    assert _differs(run, name, value) == is_new


@needs_mlflow
def test_sessions_of_a_run_add_to_one_run_and_repeat_nothing(tracked: Tracked, project: Path) -> None:
    run_session(project, pipeline_names=["index"])
    [run] = _runs(project)
    assert (run.info.run_id, run.info.status) == (tracked.run.info.run_id, "FINISHED")
    assert len(run.outputs.model_outputs) == 1
    history = tracked.client.get_metric_history(run.info.run_id, "stage1/loss")
    assert [point.step for point in history] == [1, 2]


@needs_mlflow
def test_an_interrupted_run_is_marked_killed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NamedTensorsDataset, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_session(project, pipeline_names=["index"])
    [running] = _runs(project)
    # What the end of the process does, too.
    read_catalog(project)
    [killed] = _runs(project)
    assert (running.info.status, killed.info.status) == ("RUNNING", "KILLED")


@needs_mlflow
def test_without_its_setting_mlflow_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from supcon_pipeline import mlflow_hooks

    told: list[str] = []
    monkeypatch.setattr(mlflow_hooks.logger, "warning", told.append)
    project = make_project(tmp_path / "project")
    run_session(project, pipeline_names=["data_prep"])
    assert "type kedro mlflow init --env base" in told[0]
    assert not (project / "data/mlflow").exists()


@needs_mlflow
def test_a_mistake_in_the_setting_is_one_line(tmp_path: Path) -> None:
    project = _track(make_project(tmp_path / "project"), "server: {mlflow_tracking_url: http://localhost}")
    with pytest.raises(click.ClickException, match=r"^mlflow.yml must .*, got server.mlflow_tracking_url: "):
        run_session(project, pipeline_names=["data_prep"])


@needs_mlflow
def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    project = _track(
        make_project(tmp_path / "project"), "server: {mlflow_tracking_uri: 'http://127.0.0.1:9'}"
    )
    with pytest.raises(
        click.ClickException, match=r"mlflow_tracking_uri must be .*, got http://127.0.0.1:9: "
    ):
        run_session(project, pipeline_names=["data_prep"])
    assert not (project / "data").exists()
