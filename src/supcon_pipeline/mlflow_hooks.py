"""Each run as one run of MLflow, for those who have kedro-mlflow beside the project."""

import atexit
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH
from pydantic import ValidationError

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.claims import waiting_turn
from supcon_pipeline.core.messages import show
from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset
from supcon_pipeline.datasets.run_record import RunRecordDataset
from supcon_pipeline.opening import OF_SPEED
from supcon_pipeline.run_values import RunValues, flat_parameters
from supcon_pipeline.runs import RECORD, RunBook

logger = logging.getLogger(__name__)

_STATUS = {
    "completed": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "pruned": "KILLED",
    "running": "RUNNING",
    # The record of another session cannot be read.
    "unknown": "FINISHED",
}
_ENCODER = "encoder"
_VARIABLE = "MLFLOW_TRACKING_URI"


class MlflowRunHooks(MlflowHook):
    """The hook of kedro-mlflow, which it replaces, with the runs of this project.

    It is on where there is an `mlflow.yml`. All sessions of a run are one run of MLflow. What a run has made
    is read from its artifacts whenever a session ends, so that what a killed one has made is not left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mlflow_config: Any = None
        self._pid = os.getpid()
        # What the environment says, and what MLflow has made of its variable for other projects.
        self._server: str | None = None
        self._variable: str | None = None
        # MLflow ends what is open as finished: it has registered before, and is called after.
        atexit.register(self._close_interrupted)

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Connect to MLflow as `mlflow.yml` says; where it names no server, to a database in the project.

        Raises:
            CommandError: where MLflow does not answer, or the file has a mistake.
        """
        self._close_interrupted()
        self.mlflow_config = None
        loader: Any = context.config_loader
        loader.config_patterns.setdefault("mlflow", ["mlflow*", "mlflow*/**", "**/mlflow*"])
        try:
            config = loader["mlflow"]
        except MissingConfigException:
            logger.warning("Nothing goes to MLflow without an mlflow.yml: type kedro mlflow init --env base")
            return
        if os.environ.get(_VARIABLE) != self._variable:
            self._server = os.environ.get(_VARIABLE)
        loader["mlflow"] = _with_server(config, self._server, context.project_path / "data" / "mlflow")
        try:
            with _answering("start the server, or change mlflow.yml"):
                super().after_context_created(context)
        finally:
            self._variable = os.environ.get(_VARIABLE)
        self._experiment: str = loader.experiment
        self._place = context.project_path / self._experiment
        self._chosen = self.mlflow_config.tracking.run.model_copy()

    @hook_impl
    def after_catalog_created(
        self,
        catalog: DataCatalog,
        conf_catalog: dict[str, Any],
        conf_creds: dict[str, Any],
        parameters: dict[str, Any],
        save_version: str | None,
        load_versions: dict[str, str] | None,
    ) -> None:
        """Give the datasets of kedro-mlflow their names."""
        if self.mlflow_config is not None:
            super().after_catalog_created(
                catalog, conf_catalog, conf_creds, parameters, save_version, load_versions
            )

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Begin the run in MLflow, or go on with it, and log parameters."""
        self.run_id = None
        if self.mlflow_config is None:
            return
        record = _record_of(catalog)
        run_id, commit = str(record.resolve_save_version()), record.log.entry["commit"]
        parameters = {
            self.sanitize_param_name(name)[:MAX_ENTITY_KEY_LENGTH]: value[:MAX_PARAM_VAL_LENGTH]
            for name, value in flat_parameters(record.load()["parameters"]).items()
        }
        tracked = self.mlflow_config.tracking.run
        with waiting_turn(self._place):
            tracked.id = self._chosen.id or self._find(run_id, parameters)
            tracked.name = self._chosen.name or run_id
            super().before_pipeline_run(run_params, pipeline, catalog)
            if self._is_mlflow_enabled:
                tags = {"run_id": run_id, "experiment": self._experiment, "commit": commit}
                mlflow.set_tags({name: value for name, value in tags.items() if value})
        if self._is_mlflow_enabled:
            held = MlflowClient().get_run(self.run_id).data.params
            mlflow.log_params({name: value for name, value in parameters.items() if name not in held})

    def _find(self, run_id: str, parameters: Mapping[str, str]) -> str | None:
        """The run of MLflow that has some parameters, or may have; one that has others is deleted.

        A run goes on with other parameters where nothing was made with the first, and MLflow changes none.
        """
        client, experiment = MlflowClient(), self.mlflow_config.tracking.experiment._experiment
        for run in client.search_runs([experiment.experiment_id], f"tags.run_id = '{run_id}'"):
            if run.data.tags.get("experiment") != self._experiment:
                continue
            changed = [name for name in parameters if _differs(run, name, parameters[name])]
            if not changed:
                return str(run.info.run_id)
            logger.warning("Run %s has another %s now: MLflow gets it anew", run_id, ", ".join(changed))
            client.delete_run(run.info.run_id)
        return None

    @hook_impl
    def before_node_run(self) -> None:
        """Let a node that has a thread of its own log to the run; its parameters are logged already."""
        if self.run_id is not None and mlflow.active_run() is None:
            mlflow.start_run(self.run_id)

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Log what the run has made, and end it in MLflow, unless other sessions of it go on.

        Raises:
            CommandError: where MLflow does not answer.
        """
        if self.mlflow_config is None:
            return
        with _answering("start the same command again under the id of the run, which makes nothing again"):
            self._log(catalog)
            super().after_pipeline_run(run_params, pipeline, catalog)
            self._close(catalog)

    @hook_impl
    def on_pipeline_error(
        self, error: Exception, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Log what the run has made, and end it in MLflow as failed."""
        if self.mlflow_config is None:
            return
        # What is wrong with MLflow hides no other error.
        with _only_warning():
            self._log(catalog)
        with _only_warning():
            super().on_pipeline_error(error, run_params, pipeline, catalog)
            self._close(catalog, is_failed=True)

    def _close(self, catalog: DataCatalog, is_failed: bool = False) -> None:
        """Say what has become of the run, which may have sessions beside this one."""
        run_id, self.run_id = self.run_id, None
        if run_id is not None and not self._already_active_mlflow:
            outcome = _record_of(catalog).load()["outcome"]
            is_failed = is_failed and outcome in ("completed", "unknown")
            MlflowClient().update_run(run_id, "FAILED" if is_failed else _STATUS[outcome])

    def _close_interrupted(self) -> None:
        """End the run of a session that an interrupt has ended, of which no hook is told."""
        run_id, self.run_id = self.run_id, None
        if run_id is not None and not self._already_active_mlflow and os.getpid() == self._pid:
            while mlflow.active_run():
                mlflow.end_run("KILLED")
            MlflowClient().set_terminated(run_id, "KILLED")

    def _log(self, catalog: DataCatalog) -> None:
        """Log what the run has made and MLflow lacks."""
        if self.run_id is None:
            return
        from supcon_pipeline.pipeline_registry import whole_graph

        record = _record_of(catalog)
        values = RunValues(RunBook(catalog, whole_graph()), str(record.resolve_save_version()))
        nodes = record.log.entry["nodes"].values()
        made = {name for node in nodes if node["outcome"] == "completed" for name in node["outputs"]}
        run = MlflowClient().get_run(self.run_id)
        if data_hash := values.data_hash():
            mlflow.set_tag("data_hash", data_hash)
        _log_points(run, values)
        with tempfile.TemporaryDirectory() as folder:
            _log_pages(run, values, made, Path(folder))
            if values.has_made([_ENCODER]) and (_ENCODER in made or not _has_model(run)):
                _log_encoder(values, Path(folder))


def _record_of(catalog: DataCatalog) -> RunRecordDataset:
    """The record of the run, which another hook has opened."""
    return catalog.get(RECORD)  # type: ignore[return-value]


@contextmanager
def _answering(remedy: str) -> Iterator[None]:
    """Tell in one line that MLflow does not answer in the block, or that its settings have a mistake."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise CommandError(
            f"mlflow.yml must be as kedro-mlflow reads it, got {name}: {first['msg']}; compare it with what "
            "kedro mlflow init writes"
        ) from error
    except (mlflow.MlflowException, OSError) as error:
        raise CommandError(
            f"mlflow_tracking_uri must be where MLflow answers, got {mlflow.get_tracking_uri()}: "
            f"{show(str(error))}; {remedy}"
        ) from error


@contextmanager
def _only_warning() -> Iterator[None]:
    """Warn of an error in the block."""
    try:
        yield
    except Exception as error:
        logger.warning("MLflow does not have all of this run: %s", show(str(error)))


def _with_server(config: Mapping[str, Any], chosen: str | None, folder: Path) -> dict[str, Any]:
    """The settings with a server; the default of kedro-mlflow, files, is refused by MLflow now.

    Args:
        config: the settings.
        chosen: the server where they name none.
        folder: where a database and a folder of artifacts are made, where none is chosen either.
    """
    server, tracking = config.get("server") or {}, config.get("tracking") or {}
    if server.get("mlflow_tracking_uri"):
        return dict(config)
    if chosen:
        return {**config, "server": {**server, "mlflow_tracking_uri": chosen}}
    folder.mkdir(parents=True, exist_ok=True)
    experiment = tracking.get("experiment") or {}
    created = dict(experiment.get("create_experiment_kwargs") or {})
    created["artifact_location"] = created.get("artifact_location") or str(folder / "artifacts")
    return {
        **config,
        "server": {**server, "mlflow_tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"},
        "tracking": {**tracking, "experiment": {**experiment, "create_experiment_kwargs": created}},
    }


def _differs(run: Run, name: str, value: str) -> bool:
    """Whether a parameter has another value in MLflow, and could have changed what was made."""
    return name.rpartition(".")[2] not in OF_SPEED and run.data.params.get(name, value) != value


def _log_points(run: Run, values: RunValues) -> None:
    """Log metrics and curves, without the points that are there."""
    client, now = MlflowClient(), int(time.time() * 1000)
    points = values.points()
    held = {
        (name, metric.value, metric.step)
        for name in {point.name for point in points} & run.data.metrics.keys()
        for metric in client.get_metric_history(run.info.run_id, name)
    }
    metrics = [
        Metric(name, value, now, step) for name, value, step in points if (name, value, step) not in held
    ]
    client.log_batch(run.info.run_id, metrics=metrics)


def _log_pages(run: Run, values: RunValues, made: set[str], folder: Path) -> None:
    """Log pages and pictures that were made just now, or that MLflow lacks."""
    client = MlflowClient()
    held = {file.path for file in client.list_artifacts(run.info.run_id)}
    for name, file_name in values.pages().items():
        if name in made or file_name not in held:
            value = values.load(name)
            if isinstance(value, dict):
                client.log_dict(run.info.run_id, value, file_name)
            else:
                (folder / file_name).write_bytes(value.encode() if isinstance(value, str) else value)
                client.log_artifact(run.info.run_id, str(folder / file_name))


def _has_model(run: Run) -> bool:
    """Whether MLflow has the encoder of a run."""
    found = mlflow.search_logged_models(
        [run.info.experiment_id],
        f"name = '{_ENCODER}' AND source_run_id = '{run.info.run_id}'",
        output_format="list",
    )
    return bool(found)


def _log_encoder(values: RunValues, folder: Path) -> None:
    """Log the encoder as a model that takes image files as bytes."""
    path = folder / f"{_ENCODER}.safetensors"
    NamedTensorsDataset(str(path)).write(values.load(_ENCODER), path)
    mlflow.pyfunc.log_model(
        name=_ENCODER,
        python_model=str(Path(__file__).with_name("mlflow_encoder.py")),
        artifacts={_ENCODER: str(path)},
        pip_requirements=[f"supcon_pipeline=={version('supcon_pipeline')}"],
    )
