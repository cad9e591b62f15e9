"""Hooks for what concerns every pipeline: parameters, runs and the closing table."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pydantic import BaseModel

from supcon_pipeline.commands import (
    CommandError,
    CommandsInLog,
    complete_commands,
    find_refusal,
    leaves,
    program_of,
    run_command,
)
from supcon_pipeline.core.claims import Claim
from supcon_pipeline.core.training.hosts import require_meeting
from supcon_pipeline.datasets.object_store import ObjectStore
from supcon_pipeline.datasets.progress import ProgressDataset
from supcon_pipeline.datasets.run_record import RunRecordDataset, TaskEntry
from supcon_pipeline.datasets.stores import store_of
from supcon_pipeline.datasets.tensorboard import TensorBoardDataset
from supcon_pipeline.node_log import open_node
from supcon_pipeline.opening import leave_out, open_run, require_run_to_continue
from supcon_pipeline.provenance import describe_commit
from supcon_pipeline.run_ids import choose_run_id, given_run_id
from supcon_pipeline.runs import RECORD, RunBook
from supcon_pipeline.task_log import TaskLog, close_interrupted, describe_nodes, new_entry, outcome_of
from supcon_pipeline.validation import (
    SOURCES,
    find_untouched,
    parameter_groups,
    parameter_models,
    require_weights,
    try_views,
    validate_parameters,
)

logger = logging.getLogger(__name__)
_NODE_LOGGER = logging.getLogger("kedro.pipeline.node")


class ParameterHooks:
    """Validate all parameters as soon as the configuration is read."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Refuse unknown names and invalid values.

        Raises:
            CommandError: with one line per mistake.
        """
        from supcon_pipeline.core.parameters.data import ImagesParameters

        models = parameter_models()
        parameters = context.config_loader["parameters"]
        if "images" in parameters:
            models["images"] = ImagesParameters
        validate_parameters(parameters, models)
        catalog = context.config_loader["catalog"]
        for name, source in SOURCES.items():
            if parameters.get(name, {}).get("path") and "path" not in catalog[source]:
                experiment = context.config_loader.experiment  # type: ignore[attr-defined]
                raise CommandError(
                    f"{name}.path must be given with an experiment whose {source} reads a path, got "
                    f"experiment {experiment}; {'add --env images' if name == 'images' else 'leave it out'}"
                )

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog, save_version: str | None) -> None:
        """Give kedro-dagster plain values of the parameters, since it makes forms of them."""
        if save_version is None and _is_dagster():
            for name in filter(is_parameter, list(catalog.keys())):
                value = catalog.load(name)
                dataset = catalog.get(name)
                if isinstance(value, BaseModel) and dataset is not None:
                    # To put another dataset in its place is a warning of Kedro.
                    dataset.save(value.model_dump(mode="json"))

    @hook_impl
    def before_node_run(self, inputs: dict[str, Any]) -> None:
        """Turn the plain values into parameters again."""
        if _is_dagster():
            for group, model in parameter_models().items():
                value = inputs.get(f"params:{group}")
                if isinstance(value, dict):
                    validate_parameters({group: value}, {group: model})
                    inputs[f"params:{group}"] = model.model_validate(value)


def _is_dagster() -> bool:
    """Whether Dagster runs the nodes: it uses hooks and catalog, and neither session nor runner.

    The program `kedro` loads the commands of all plugins, whoever runs the nodes.
    """
    return "kedro_dagster" in sys.modules and "kedro_dagster.cli" not in sys.modules


class RunHooks:
    """Open a run before its first node, write down what it does, and print its results after the last.

    All of it is here, and not in a session of this project, because orchestrators and scripts use sessions of
    their own.
    """

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the experiment and the project."""
        self.experiment = context.config_loader.experiment  # type: ignore[attr-defined]
        self.project_path = context.project_path

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog, save_version: str | None) -> None:
        """Outside a run (notebook, Kedro-Viz), let the catalog show one whole run."""
        if save_version is None:
            from supcon_pipeline.pipeline_registry import whole_graph

            book, run_id = RunBook(catalog, whole_graph()), given_run_id()
            if run_id and _is_dagster():
                # Each node may have a process and a catalog of its own.
                book.join(run_id)
            else:
                book.show()

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Open the run, pin what it reads to one earlier run, and leave out the nodes that are done.

        Raises:
            CommandError: where `open_run` refuses the run, or the transforms of a stage that will run do not
                work on its images.
            InputError: where this is one of several hosts, and was not started by `kedro run`.
        """
        from supcon_pipeline.pipeline_registry import whole_graph

        require_meeting()
        # Kedro logs the refusal of a node before any hook hears of it.
        CommandsInLog(self._completing(run_params)).replace_in(_NODE_LOGGER)
        # An interrupt reaches no hook; a thread that begins a session has left the one before.
        close_interrupted(threading.get_ident())
        run_id = choose_run_id(_session_id(run_params))
        given = run_params.get("runtime_params") or {}
        program = program_of(self.project_path)
        command = partial(run_command, env=run_params.get("env"), params=given, program=program)
        book = RunBook(catalog, whole_graph(), command)
        if run_params.get("only_missing_outputs"):
            require_run_to_continue(book, run_id)
        parameters = _plain(catalog.load("parameters"), pipeline)
        require_weights(parameters, pipeline)
        stages = {name: _views(parameters, name) for name in _stages(pipeline)}
        if "prepared_images" in pipeline.all_outputs():
            _try_on_planned(stages, parameters["data_prep"])
        # Two tasks of one run go side by side; two processes at the same node would spoil each other's work.
        names = [f"{run_id}/{node.name}" for node in pipeline.nodes]
        with _claiming(_shared_place(book.record_dataset(run_id)), names):
            pins = run_params.get("load_versions") or {}
            commit, reason = describe_commit(self.project_path)
            origin = {"experiment": self.experiment, "commit": commit, "commit_reason": reason}
            kept = open_run(book, run_id, pipeline, lambda: origin, parameters, pins)
            entry = new_entry(run_params, describe_nodes(pipeline, kept), parameters, commit, reason)
            log = _open_log(catalog, entry, pipeline)
            _warn_of_untouched(given, pipeline, log.dataset)
            if stages and "dataset_card" in pipeline.inputs():
                # The shape of the images is known only once the run that holds them is pinned.
                with log.failing():
                    _try_on_prepared(stages, catalog.load("dataset_card"))
        leave_out(pipeline, kept, run_id)

    def _completing(self, run_params: dict[str, Any]) -> Callable[[str], str]:
        """A function that completes the commands in a message by what the session was started with."""
        program, params = program_of(self.project_path), run_params.get("runtime_params")
        return partial(complete_commands, env=run_params.get("env"), program=program, params=params)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> None:
        """Write down that a node begins.

        Raises:
            CommandError: where Dagster gives each node a process, and no id that they share.
        """
        log = _log_of(catalog)
        if _is_dagster():
            from supcon_pipeline.pipeline_registry import whole_graph

            log = open_node(RunBook(catalog, whole_graph()), node, inputs, log)
        _THREAD.log = log
        if log is not None:
            log.start_node(node.name)

    @hook_impl
    def after_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Let others have the curves of a training: an object store gets them before what was trained."""
        for name in node.inputs:
            dataset = catalog.get(name)
            if isinstance(dataset, TensorBoardDataset):
                dataset.publish()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Write down that a node is complete, with the last of its outputs."""
        log: TaskLog | None = getattr(_THREAD, "log", None)
        if log is not None:
            log.save_output(node.name, dataset_name)

    @hook_impl
    def on_node_error(self, error: Exception, node: Node, catalog: DataCatalog) -> None:
        """Write down that a node failed or was stopped."""
        log = getattr(_THREAD, "log", None) or _log_of(catalog)
        if log is not None:
            log.fail_node(node.name, error)

    @hook_impl
    def on_pipeline_error(self, error: Exception, run_params: dict[str, Any], catalog: DataCatalog) -> None:
        """Write down how the session ended; name the experiment in the commands of a refusal."""
        refusal = find_refusal(error)
        if refusal is not None and not isinstance(refusal, CommandError):
            # Whoever started the session shows the error: here is the last place that all of them pass.
            refusal.args = (self._completing(run_params)(str(refusal)),)
        _release_claim()
        log = _log_of(catalog)
        if log is not None:
            log.close(outcome_of(error))

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Delete the progress of finished trainings; print where the results are and what to type next."""
        from supcon_pipeline.results import print_results

        log = _log_of(catalog)
        if log is not None:
            log.close("completed")
            pipeline = log.pipeline
        elif not _is_dagster():
            return
        for name in pipeline.inputs():
            dataset = catalog.get(name)
            if isinstance(dataset, ProgressDataset):
                dataset.clear()

        _release_claim()
        run_id = choose_run_id(_session_id(run_params))
        print_results({**run_params, "run_id": run_id}, pipeline, catalog, self.project_path)


# The log of the session whose node runs in each thread: hooks of datasets are told of no catalog. Beside it,
# the claim of the session that each thread has begun.
_THREAD = threading.local()


@contextmanager
def _claiming(place: Path, names: list[str]) -> Iterator[None]:
    """Claim nodes for the session that this thread begins; where the block raises, it has none."""
    # An interrupt has reached no hook.
    _release_claim()
    _THREAD.claim = Claim(place, names, "run")
    try:
        yield
    except BaseException:
        _release_claim()
        raise


def _shared_place(record: RunRecordDataset) -> Path:
    """What is worked in: the records of all runs, the same for all projects whose artifacts lie together."""
    store = store_of(record)
    return store.copy_of(record._filepath) if isinstance(store, ObjectStore) else Path(record._filepath)


def _release_claim() -> None:
    claim: Claim | None = _THREAD.__dict__.pop("claim", None)
    if claim is not None:
        claim.release()


def _session_id(run_params: dict[str, Any]) -> str:
    """The id of the session or of its run, whichever there is."""
    return str(run_params.get("run_id") or run_params["session_id"])


def _open_log(catalog: DataCatalog, entry: TaskEntry, pipeline: Pipeline) -> TaskLog:
    """Begin the log of a session, from here on that of its catalog."""
    record: RunRecordDataset = catalog.get(RECORD)  # type: ignore[assignment]
    record.log = log = TaskLog(record, entry, Pipeline(pipeline.nodes))
    return log


def _log_of(catalog: DataCatalog) -> TaskLog | None:
    """The log of the session that a catalog belongs to; none where no hook has opened a run."""
    return getattr(catalog.get(RECORD), "log", None)


def _stages(pipeline: Pipeline) -> list[str]:
    """The stages that will run, whose transforms can be tried before."""
    return [name for name in ("stage1", "stage2") if f"params:{name}" in pipeline.inputs()]


def _try_on_planned(stages: dict[str, dict[str, Any]], data_prep: dict[str, Any]) -> None:
    """Try the views of each stage on images as these parameters will store them."""
    size, storage = data_prep["image_size"], data_prep.get("storage", "squares")
    try_views(stages, (size, size, data_prep["num_channels"]), storage)


def _try_on_prepared(stages: dict[str, dict[str, Any]], dataset_card: dict[str, Any]) -> None:
    """Try the views of each stage on images as they are stored; cards of before had squares alone."""
    try_views(stages, tuple(dataset_card["image_shape"]), dataset_card.get("storage", "squares"))


def _views(parameters: dict[str, Any], stage: str) -> dict[str, Any]:
    """The transforms of a stage and the sizes of its views, as `ViewPolicy` takes them."""
    encoder = parameters.get("stage1", {})
    own = encoder.get("view_sizes") if stage == "stage1" else None
    sizes = own or [size for size in [encoder.get("view_size")] if size]
    return {"transforms": parameters[stage]["transforms"], "view_sizes": sizes}


def _plain(parameters: dict[str, Any], pipeline: Pipeline) -> dict[str, Any]:
    """The parameters of what will run, as plain JSON values, with all that was left out."""
    models = parameter_models()
    groups = {group for node in pipeline.nodes for group in parameter_groups(node)}
    return {
        name: models[name].model_validate(value).model_dump(mode="json") if name in models else value
        for name, value in parameters.items()
        if name in groups or name == "seed"
    }


def _warn_of_untouched(given: dict[str, Any], pipeline: Pipeline, record: RunRecordDataset) -> None:
    """Name the parameters that were given for this run and change nothing in it."""
    untouched = find_untouched(given, pipeline)
    made_with = dict(leaves(record.load()["parameters"])) if untouched else {}
    for path, value in untouched.items():
        known = f", and what it reads was made with {made_with[path]!r}" if path in made_with else ""
        logger.warning("%s=%r changes nothing: no node of this run takes it%s", path, value, known)
