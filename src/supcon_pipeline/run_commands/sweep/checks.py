"""A sweep checked against the project, before anything runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from kedro.pipeline import Pipeline
from pydantic import BaseModel

from supcon_pipeline.commands import CommandError, replaced
from supcon_pipeline.core.messages import suggest
from supcon_pipeline.pipeline_registry import register_pipelines
from supcon_pipeline.pipelines.swa.pipeline import MODELS
from supcon_pipeline.run_commands.books import Experiment
from supcon_pipeline.run_commands.sweep.file import SweepFile
from supcon_pipeline.run_commands.sweep.plan import DATA, STAGES, SweepPlan, graph_of, groups_of
from supcon_pipeline.run_commands.sweep.space import Range, Space
from supcon_pipeline.validation import model_in, parameter_models, require_weights, validate_parameters

Models = Mapping[str, type[BaseModel]]
# What decides which images are of which split: by choosing it, test images would choose.
_OF_THE_SPLIT = ("seed", "seeds", "split_by", "validation_fraction", "test_fraction")


def plan_sweep(name: str, sweep: SweepFile, experiment: Experiment) -> SweepPlan:
    """Check a sweep against the project, and plan its runs.

    Raises:
        CommandError: where it names what is not there, a value is impossible, or test images would choose.
    """
    _require_metric(sweep)
    needed = experiment.book.pipelines_making([f"{sweep.stage}_history"], ())
    pipelines = needed if sweep.pipelines is None else _chosen_pipelines(sweep, needed, experiment)
    models = _models(experiment)
    parameters = _parameters(sweep, experiment)
    validate_parameters(parameters, dict(models))
    _require_searchable(sweep, pipelines, parameters)
    space = Space(sweep.search, _whole_names(sweep, models))
    _require_values(space, parameters, models, graph_of(pipelines))
    _require_grid(sweep, space)
    has_own_data = DATA in pipelines and DATA not in {name.partition(".")[0] for name in sweep.search}
    earlier = {name for name in needed if name not in pipelines} | ({DATA} if has_own_data else set())
    evaluated = experiment.book.pipelines_making(["metrics"], ())
    return SweepPlan(
        name,
        sweep,
        experiment,
        parameters,
        space,
        trial_pipelines=[name for name in pipelines if name not in earlier],
        final_pipelines=[name for name in evaluated if name not in earlier],
        has_own_data=has_own_data,
    )


def _require_metric(sweep: SweepFile) -> None:
    models, known = parameter_models(), []
    for stage in STAGES:
        checkpoints = model_in(models[stage].model_fields["checkpoints"].annotation)
        metrics = get_args(checkpoints.model_fields["metric"].annotation) if checkpoints else ()
        known += [f"{stage}.{metric}" for metric in metrics]
    if sweep.metric not in known:
        raise CommandError(
            f"metric must be one that a training measures on validation images, got {sweep.metric!r}; "
            f"{suggest(sweep.metric, known)}"
        )


def _chosen_pipelines(sweep: SweepFile, needed: Sequence[str], experiment: Experiment) -> list[str]:
    """The pipelines of each trial that the file names, in order.

    Args:
        sweep: has them.
        needed: what the metric is made by, in order.
        experiment: of the sweep.
    """
    chosen, registered = sweep.pipelines or [], register_pipelines()
    harmless = experiment.book.pipelines_making(MODELS.values(), ())
    for name in chosen:
        if name not in registered:
            raise CommandError(f"pipelines must be of this project, got '{name}'; {suggest(name, harmless)}")
        if name not in harmless:
            raise CommandError(
                f"pipelines of a search must be of {', '.join(harmless)}, which look at no "
                f"test image, got '{name}'; leave it out: the best trial is evaluated in the end"
            )
    own = [name for name in needed if name in chosen]
    if not own or own != list(needed[-len(own) :]):
        raise CommandError(
            f"pipelines must have the last of {', '.join(needed)}, by which the metric is made, got "
            f"{', '.join(chosen) or 'none'}; add what is missing"
        )
    return [name for name in harmless if name in chosen]


def _models(experiment: Experiment) -> Models:
    from supcon_pipeline.core.parameters.data import ImagesParameters

    models = parameter_models()
    return {**models, "images": ImagesParameters} if "images" in experiment.config["parameters"] else models


def _parameters(sweep: SweepFile, experiment: Experiment) -> dict[str, Any]:
    """The parameters of the experiment with what is fixed, as a run is given them."""
    given: dict[str, Any] = {}
    for name, value in sweep.fixed.items():
        given = replaced(given, name, value)
    parameters: dict[str, Any] = experiment.config_given(given)["parameters"]
    return parameters


def _require_searchable(sweep: SweepFile, pipelines: Iterable[str], parameters: Mapping[str, Any]) -> None:
    """Refuse to search what no trial takes, and what would let chance or test images choose."""
    taken = groups_of(graph_of(pipelines))
    for name in sweep.search:
        group = name.partition(".")[0]
        if name.rpartition(".")[2] in _OF_THE_SPLIT or group == "images":
            raise CommandError(
                f"search must leave seeds, images and their split as they are, got '{name}'; "
                "write it under fixed"
            )
        if name in sweep.fixed:
            raise CommandError(f"search must not have what is fixed, got '{name}' in both; leave one out")
        if group in parameters and group not in taken:
            raise CommandError(
                f"search must be of parameters that the trials take ({', '.join(sorted(taken))}), "
                f"got '{name}'; leave it out"
            )
    for stage in sorted(taken & set(STAGES)):
        own = parameters[stage].get("seed", parameters["seed"])
        if own != parameters["seed"]:
            raise CommandError(
                f"{stage}.seed must be ${{seed}} in a sweep, whose runs have different seeds, got {own}; "
                f"write seed: {own} under fixed instead"
            )


def _require_values(space: Space, parameters: Mapping[str, Any], models: Models, graph: Pipeline) -> None:
    """Refuse unknown names, and values that the typed parameters do not take together."""
    groups = {name.partition(".")[0] for name in space.search}
    # An unknown group is named beside all that there are.
    concerned = {name: models[name] for name in sorted(groups)} if groups <= models.keys() else dict(models)
    for values in space.corners():
        tried = dict(parameters)
        for name, value in values.items():
            tried = replaced(tried, name, value)
        validate_parameters({name: tried[name] for name in {*concerned, *groups}}, concerned)
        require_weights(tried, graph)


def _whole_names(sweep: SweepFile, models: Models) -> set[str]:
    """The names of the ranges that take whole numbers alone.

    Raises:
        CommandError: where a parameter takes no number, or whole ones and the range has others.
    """
    whole = set()
    for name, values in sweep.search.items():
        kinds = set(_kinds_at(name, models)) if isinstance(values, Range) else set()
        # An unknown name, which has none, is refused with its values.
        if not kinds or float in kinds:
            continue
        if int not in kinds:
            raise CommandError(f"search.{name} must be a list of choices, got a range; write the choices")
        numbers = [values.low, values.high, values.step or 1] if isinstance(values, Range) else []
        for number in numbers:
            if number != int(number):
                raise CommandError(f"search.{name} must have whole numbers, got {number:g}; round it")
        whole.add(name)
    return whole


def _kinds_at(name: str, models: Models) -> Iterator[type]:
    """The types that a parameter may have; none where there is no such parameter."""
    group, *parts = name.split(".")
    model, annotation = models.get(group), None
    for part in parts:
        if model is None or part not in model.model_fields:
            return
        annotation = model.model_fields[part].annotation
        model = model_in(annotation)
    yield from _types_in(annotation)


def _types_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


def _require_grid(sweep: SweepFile, space: Space) -> None:
    """Refuse ranges of which a grid cannot try every number."""
    for name, values in sweep.search.items():
        if sweep.sampler != "grid" or not isinstance(values, Range):
            continue
        if values.log or (values.step is None and name not in space.whole):
            raise CommandError(
                f"search.{name} must be a list of choices or have a step with sampler grid, got a range; "
                "write the choices"
            )
