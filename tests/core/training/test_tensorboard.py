import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from supcon_pipeline.core.training.tensorboard import TrainingLog

MAP_AT_R = "final/embedding.mean_average_precision_at_r"
TRAININGS = {
    "baseline/1": ({"stage": "baseline", "backbone.name": "resnet18", "optimizer.lr": 0.1}, {MAP_AT_R: 0.7}),
    "stage1/1": (
        {"stage": "stage1", "backbone.name": "resnet18", "optimizer.lr": 0.1, "loss.temperature": 0.07},
        {MAP_AT_R: 0.8, "final/projection.ami": 0.5},
    ),
    "stage1/2": (
        {"stage": "stage1", "backbone.name": "resnet_narrow", "optimizer.lr": 0.2, "loss.temperature": 0.5},
        {MAP_AT_R: 0.9, "final/projection.ami": 0.6},
    ),
    "stage2/2": ({"stage": "stage2", "optimizer.lr": 0.3, "label_smoothing": 0.0}, {"final/accuracy": 0.95}),
}


@pytest.fixture
def table(tmp_path):
    """What TensorBoard shows of these trainings: the names of the parameters and metrics, and the rows."""
    for name, (parameters, metrics) in TRAININGS.items():
        with TrainingLog(str(tmp_path / name)) as log:
            log.add_scalar("step/loss", 1.0, 0)
            log.add_hparams(parameters, metrics, run_name=".")
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    backend = Context(TBContext(data_provider=provider))
    request = RequestContext()
    content = backend.hparams_metadata(request, "")
    experiment = backend.experiment_from_metadata(request, "", True, content, [])
    asked = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[api_pb2.ColParams(metric=metric.name) for metric in experiment.metric_infos],
        slice_size=100,
    )
    return experiment, Handler(request, backend, "", asked).run().session_groups


def test_one_table_has_the_parameters_and_metrics_of_every_training_of_every_run(table):
    experiment, rows = table
    parameters = [info.name for info in experiment.hparam_infos]
    assert set(parameters) >= {name for named, _ in TRAININGS.values() for name in named}
    # What TensorBoard shows before anything is chosen.
    assert parameters[:4] == ["backbone.name", "loss.temperature", "optimizer.lr", "stage"]
    metrics = [info.name.tag for info in experiment.metric_infos]
    assert metrics[0] == "final/embedding.precision_at_1"
    assert set(metrics) >= {name for _, measured in TRAININGS.values() for name in measured}
    assert "step/loss" not in metrics
    assert {group.name: _values(group) for group in rows} == {
        name: (parameters, pytest.approx(measured)) for name, (parameters, measured) in TRAININGS.items()
    }


def _values(group):
    parameters = {
        name: value.string_value if value.HasField("string_value") else value.number_value
        for name, value in group.hparams.items()
    }
    return parameters, {value.name.tag: value.value for value in group.metric_values}


def test_a_training_writes_one_file_with_its_scalars_and_its_row(tmp_path):
    with TrainingLog(str(tmp_path)) as log:
        log.add_scalar("step/loss", 1.0, 0)
        log.add_hparams({"stage": "stage1"}, {MAP_AT_R: 0.5}, run_name=".")
    assert len(list(tmp_path.rglob("events*"))) == 1


# In a process of its own, since pytest has its own way with what threads fail with.
FULL_DISK = """
import sys, threading
from tensorboard.summary.writer.record_writer import RecordWriter
from supcon_pipeline.core.training.tensorboard import TrainingLog

def fail(*_):
    raise OSError(28, "No space left on device")

RecordWriter.write = fail
try:
    TrainingLog(sys.argv[1])
except OSError as error:
    print(error)
other = threading.Thread(target=lambda: 1 / 0, name="another")
other.start()
other.join()
"""


def test_a_full_disk_is_told_by_the_log_and_not_by_its_thread(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, check=True, text=True)
    assert ended.stdout.strip() == "[Errno 28] No space left on device"
    assert ended.stderr.count("Exception in thread") == 1
    assert "Exception in thread another" in ended.stderr
