"""TensorBoard's table of hyper-parameters, one for all trainings in a folder."""

import threading
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from supcon_pipeline.core.parameters.checkpoints import (
    ClassifierCheckpointParameters,
    ContrastiveCheckpointParameters,
)
from supcon_pipeline.core.parameters.stages import BaselineTraining, Stage1Parameters, Stage2Parameters

# The first columns of the table.
_FIRST = ("stage", "backbone.name", "loss.temperature", "optimizer.lr")
# Who watches a training, as a sweep does, sees each epoch soon after it has ended.
_FLUSH_SECONDS = 2


class TrainingLog(SummaryWriter):
    """A `SummaryWriter` whose trainings share one table of hyper-parameters, whatever their stage.

    TensorBoard takes the columns of its table from a single one of the trainings that it finds. With
    `SummaryWriter`, which writes down its own hyper-parameters and metrics alone, the others vanish.
    """

    def __init__(self, folder: str):
        _leave_errors_to_the_writer()
        super().__init__(folder, flush_secs=_FLUSH_SECONDS)

    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, Any],
        hparam_domain_discrete: dict[str, list[Any]] | None = None,
        run_name: str | None = None,  # noqa: ARG002 it is that of this log
        global_step: int | None = None,
    ) -> None:
        """Add a row to the table; its columns are those of all stages."""
        _, start, end = hparams(hparam_dict, metric_dict, hparam_domain_discrete)
        for summary in (_columns(), start, end):
            self._get_file_writer().add_summary(summary, global_step)
        for name, value in metric_dict.items():
            self.add_scalar(name, value, global_step)


@cache
def _leave_errors_to_the_writer() -> None:
    """Do not print what TensorBoard's thread fails with: the writer raises it again where it is used."""
    from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread

    show = threading.excepthook

    def show_others(error: threading.ExceptHookArgs) -> None:
        if not isinstance(error.thread, _AsyncWriterThread):
            show(error)

    threading.excepthook = show_others


def _columns() -> Any:
    """The same columns from every training: the parameters and metrics of all stages."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    names = {"stage": True}
    for model in (Stage1Parameters, Stage2Parameters, BaselineTraining):
        names |= dict(_leaves(model))
    parameters = [
        api_pb2.HParamInfo(
            name=name,
            type=api_pb2.DATA_TYPE_STRING if is_text else api_pb2.DATA_TYPE_FLOAT64,
            # TensorBoard shows those first that differ.
            differs=name in _FIRST,
        )
        for name, is_text in names.items()
    ]
    chosen = (ContrastiveCheckpointParameters, ClassifierCheckpointParameters)
    tags = [metric for model in chosen for metric in get_args(model.model_fields["metric"].annotation)]
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"final/{metric}")) for metric in (*tags, "loss")
    ]
    experiment = api_pb2.Experiment(hparam_infos=parameters, metric_infos=metrics)
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    described = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=described)])


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The dotted name of every single value in a model, and whether it may be a word."""
    for name, field in model.model_fields.items():
        types = list(_types_in(field.annotation))
        models = [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if list in types or tuple in types:
            # Of the transforms there are as many as somebody writes down.
            continue
        if models:
            yield from (leaf for inner in models for leaf in _leaves(inner, f"{prefix}{name}."))
        else:
            yield f"{prefix}{name}", any(kind is str or isinstance(kind, str) for kind in types)


def _types_in(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is composed of; a choice between words gives the words."""
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _types_in(part)
