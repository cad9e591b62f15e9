"""What a run is asked for, against what there is, before anything runs: names, parameters, transforms."""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, get_args

from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel, ValidationError

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.messages import InputError, nearest_names, suggest

# Parameters of no pipeline: those of the pipelines refer to the first, the catalog to the second.
SHARED = ("seed", "images")


def require_names(named: dict[str, Any]) -> None:
    """Make sure that there are the pipelines, nodes and artifacts that a run is asked for.

    Raises:
        CommandError: with the nearest right name.
    """
    from supcon_pipeline.pipeline_registry import register_pipelines

    pipelines = register_pipelines()
    chosen = [*(named.get("pipeline_names") or []), *filter(None, [named.get("pipeline_name")])]
    for name in chosen:
        if name not in pipelines:
            raise CommandError(f"pipelines must be known ones, got '{name}'; {suggest(name, pipelines)}")
    reached = {node.name for name in chosen or ["__default__"] for node in pipelines[name].nodes}
    makers = {node.name: node.namespace for pipeline in pipelines.values() for node in pipeline.nodes}
    artifacts = sorted({name for pipeline in pipelines.values() for name in pipeline.all_outputs()})
    for name in named.get("load_versions") or {}:
        if name not in artifacts:
            raise CommandError(f"load_versions must name artifacts, got '{name}'; {suggest(name, artifacts)}")
    for option in ("node_names", "from_nodes", "to_nodes"):
        for name in named.get(option) or []:
            if name not in makers:
                raise CommandError(f"nodes must be known ones, got '{name}'; {suggest(name, makers)}")
            if name not in reached:
                raise CommandError(
                    f"nodes must be in a pipeline that runs, got '{name}'; add --pipelines {makers[name]}"
                )


def parameter_models() -> dict[str, type[BaseModel]]:
    """The models of the parameters that the pipelines take, by name."""
    from supcon_pipeline.pipeline_registry import register_pipelines

    models: dict[str, type[BaseModel]] = TypeExtractor(register_pipelines()).extract_types_from_pipelines()
    return models


def validate_parameters(parameters: dict[str, Any], models: dict[str, type[BaseModel]]) -> None:
    """Check parameters against the models of the pipelines.

    Raises:
        CommandError: with one line per mistake.
    """
    known = [*SHARED, *(path for name, model in models.items() for path in _paths(name, model))]
    lines = [_unknown(name, known) for name in parameters if name not in (*models, *SHARED)]
    for name, model in models.items():
        if name not in parameters:
            lines.append(f"{name} must be given, got nothing; add it to conf/base/parameters_{name}.yml")
            continue
        try:
            model.model_validate(parameters[name])
        except ValidationError as error:
            lines += [_explain(name, dict(mistake), known) for mistake in error.errors()]
    if lines:
        raise CommandError("\n".join(lines))


def _paths(name: str, model: type[BaseModel]) -> Iterator[str]:
    """The dotted names of a group of parameters and of all in it."""
    yield name
    for field, info in model.model_fields.items():
        inner = _model_in(info.annotation)
        yield from _paths(f"{name}.{field}", inner) if inner else [f"{name}.{field}"]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, or is a list or an alternative of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _explain(root: str, mistake: dict[str, Any], known: Sequence[str]) -> str:
    """One mistake that pydantic found as `<name> must <contract>, got <value>; <remedy>`."""
    path = ".".join([root, *map(str, mistake["loc"])])
    if mistake["type"] == "extra_forbidden":
        return _unknown(path, known)
    if mistake["type"] == "missing":
        return f"{path} must be given, got nothing; add it to the parameters"
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "value_error":
        # Raised by the model itself, in the form of the house already.
        return f"{path} {message}" if message.startswith("must ") else f"{path}: {message}"
    contract = message.replace("Input should be", "must be").replace("Input should", "must")
    choices = re.findall(r"'([^']*)'", mistake.get("ctx", {}).get("expected", ""))
    nearest = nearest_names(str(mistake["input"]), choices)
    remedy = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"{path} {contract}, got {mistake['input']!r}{remedy}"


def _unknown(path: str, known: Sequence[str]) -> str:
    """The refusal of a name that is not there, with the nearest of the whole tree or else those beside it."""
    group, _, name = path.rpartition(".")
    # The place in a list is no part of the name of a parameter.
    group = re.sub(r"\.\d+(?=\.|$)", "", group)
    nearest = _nearest_path(name, group, known)
    beside = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == group]
    remedy = f"did you mean '{nearest}'?" if nearest else f"known are {', '.join(beside)}"
    return f"{path} must be a known parameter, got '{name}'; {remedy}"


def _nearest_path(name: str, group: str, known: Sequence[str]) -> str | None:
    """The dotted name whose last part looks most like `name`; of several, the one nearest to the group."""
    ends = dict.fromkeys(path.rpartition(".")[2] for path in known)
    nearest = nearest_names(name, ends)
    candidates = [path for path in known if path.rpartition(".")[2] in nearest]
    return max(candidates, key=lambda path: _count_shared(path, group), default=None)


def _count_shared(path: str, group: str) -> int:
    """How many parts two dotted names begin with alike."""
    pairs = zip(path.split("."), group.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def try_views(stages: dict[str, list[dict[str, Any]]], image_shape: tuple[int, int, int]) -> None:
    """Try the transforms of each stage, so that the last one is not refused when the first has been trained.

    Raises:
        CommandError: with a line for each stage whose transforms do not work on images of that shape.
    """
    from supcon_pipeline.core.views.policy import ViewPolicy

    lines = []
    for name, transforms in stages.items():
        try:
            ViewPolicy(transforms, 1, image_shape)
        except InputError as error:
            message = str(error)
            lines.append(
                f"{name}.{message}" if message.startswith("transforms ") else f"{name}.transforms: {message}"
            )
    if lines:
        raise CommandError("\n".join(lines))
