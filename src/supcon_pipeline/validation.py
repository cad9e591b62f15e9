"""Checks before anything runs: do the names asked for exist, are the parameters valid, do transforms work?"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, get_args

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel, ValidationError

from supcon_pipeline.commands import CommandError, leaves
from supcon_pipeline.core.messages import InputError, nearest_names, printable, show, suggest

# Parameters that belong to no pipeline: those of the pipelines refer to the first, the catalog to the second.
SHARED = ("seed", "images")
# The catalog entry that reads the `path` of each group of parameters.
SOURCES = {
    "images": "raw_images",
    "inference": "inference_images",
    "enrol": "enrol_images",
    "out_of_distribution": "outside_images",
}

# By how much a name of the same group may be less like the one that was typed.
_BESIDE = 0.1


class _Filter(NamedTuple):
    """An argument of a session's run that chooses nodes.

    Args:
        option: its name on the command line.
        kind: what it names.
        names_of: the names of a node that it may hold.
    """

    option: str
    kind: str
    names_of: Callable[[Node], Iterable[str]]


_FILTERS = {
    "node_names": _Filter("--nodes", "nodes", lambda node: [node.name]),
    "from_nodes": _Filter("--from-nodes", "nodes", lambda node: [node.name]),
    "to_nodes": _Filter("--to-nodes", "nodes", lambda node: [node.name]),
    "from_inputs": _Filter("--from-inputs", "inputs of nodes", lambda node: node.inputs),
    "to_outputs": _Filter("--to-outputs", "outputs of nodes", lambda node: node.outputs),
    "namespaces": _Filter("--namespaces", "namespaces", lambda node: [str(node.namespace)]),
    "tags": _Filter("--tags", "tags of nodes", lambda node: sorted(node.tags)),
}


def require_names(named: Mapping[str, Any]) -> None:
    """Make sure that the pipelines, nodes, datasets, tags and versions that a run names exist.

    Args:
        named: keyword arguments of `KedroSession.run`.

    Raises:
        CommandError: with the nearest existing name, or with what to add to the command.
    """
    from supcon_pipeline.pipeline_registry import register_pipelines, whole_graph

    pipelines, everything = register_pipelines(), whole_graph()
    chosen = [*(named.get("pipeline_names") or []), *filter(None, [named.get("pipeline_name")])]
    _require_known("--pipelines", "pipelines", chosen, pipelines)
    running = sum((pipelines[name] for name in chosen or ["__default__"]), Pipeline([]))
    artifacts = sorted(everything.all_outputs())
    versions = named.get("load_versions") or {}
    _require_known("--load-versions", "artifacts", versions, artifacts)
    for name in (name for name, version in versions.items() if not str(version).strip()):
        raise CommandError(
            f"--load-versions must give {name} the id of a run, got nothing; "
            f"leave {name} out to read the newest run"
        )
    given = {argument: list(named[argument]) for argument in _FILTERS if named.get(argument)}
    for argument, names in given.items():
        _require_filter(argument, names, everything, running, chosen)
    _require_common_node(running, given)


def _require_filter(
    argument: str, names: Sequence[str], everything: Pipeline, running: Pipeline, chosen: Sequence[str]
) -> None:
    """Refuse names that do not exist, or exist only in pipelines that were not chosen."""
    option, kind, _ = _FILTERS[argument]
    owners = _owners(everything, argument)
    _require_known(option, kind, names, owners)
    absent = [name for name in names if name not in _owners(running, argument)]
    if absent:
        needed = dict.fromkeys([*chosen, *(owners[name] for name in names)])
        raise CommandError(
            f"{option} must name {kind} of a pipeline that runs, got '{absent[0]}'; "
            f"add --pipelines {','.join(needed)}"
        )


def _require_known(option: str, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise CommandError(
                f"{option} must name {kind} of this project, got '{name}'; {suggest(name, known)}"
            )


def _owners(pipeline: Pipeline, argument: str) -> dict[str, str]:
    """The names that an argument may hold, each with the first pipeline that has such a node."""
    owners: dict[str, str] = {}
    for node in pipeline.nodes:
        for name in _FILTERS[argument].names_of(node):
            owners.setdefault(name, str(node.namespace))
    return owners


def _require_common_node(running: Pipeline, given: Mapping[str, Sequence[str]]) -> None:
    """Refuse filters that leave no node: Kedro runs only the nodes that pass all of them."""
    names: dict[str, Any] = {
        "node_namespaces" if name == "namespaces" else name: given[name] for name in given
    }
    try:
        running.filter(**names)
    except ValueError as error:
        found = " ".join(f"{_FILTERS[name].option} {','.join(given[name])}" for name in given)
        raise CommandError(f"filters must have a node in common, got {found}; leave one out") from error


def parameter_models() -> dict[str, type[BaseModel]]:
    """The models of the parameters that the pipelines take, by name."""
    from supcon_pipeline.pipeline_registry import register_pipelines

    models: dict[str, type[BaseModel]] = TypeExtractor(register_pipelines()).extract_types_from_pipelines()
    return models


def validate_parameters(parameters: dict[str, Any], models: dict[str, type[BaseModel]]) -> None:
    """Check all parameters against the models that the pipelines declare.

    Args:
        parameters: as the configuration gives them, nested by pipeline.
        models: the model of each group of parameters, by name; of one alone, only its names are suggested.

    Raises:
        CommandError: with one line per mistake.
    """
    shared = SHARED if len(models) > 1 else ()
    known = [*shared, *(path for name, model in models.items() for path in _paths(name, model))]
    lines = [_unknown(str(name), known) for name in parameters if name not in (*models, *SHARED)]
    for name, model in models.items():
        if name not in parameters:
            lines.append(f"{name} must be given, got nothing; add it to conf/base/parameters_{name}.yml")
            continue
        try:
            model.model_validate(parameters[name])
        except ValidationError as error:
            lines += [_explain(name, dict(mistake), known) for mistake in error.errors()]
    if lines:
        raise CommandError("\n".join(map(printable, lines)))


def parameter_groups(node: Node) -> list[str]:
    """The groups of parameters that a node takes, itself or through its source of images."""
    taken = {name.partition(":")[2].partition(".")[0] for name in node.inputs if name.startswith("params:")}
    return sorted(taken | {group for group, source in SOURCES.items() if source in node.inputs})


def find_untouched(given: Mapping[str, Any], pipeline: Pipeline) -> dict[str, Any]:
    """The parameters given for a run that no node of it takes, by their dotted names.

    Args:
        given: nested by group.
        pipeline: what will run.
    """
    groups = {group for node in pipeline.nodes for group in parameter_groups(node)}
    models = parameter_models()
    names = [name for group in groups & models.keys() for name in _paths(group, models[group])]
    if any(name.rpartition(".")[2] in ("seed", "seeds") for name in names):
        groups.add("seed")
    trained = {node.namespace for node in pipeline.nodes if "params:stage1" in node.inputs}
    idle = {f"stage1.{name}" for name in _not_of_baseline()} if trained == {"baseline"} else set()
    return {
        path: value
        for path, value in leaves(given)
        if path.partition(".")[0] not in groups or ".".join(path.split(".")[:2]) in idle
    }


def _not_of_baseline() -> set[str]:
    """What of stage 1 the baseline, which is trained by its parameters, has of its own or not at all."""
    # At the start of every command, it would take a while.
    from supcon_pipeline.core.parameters.stages import BaselineParameters, BaselineTraining, Stage1Parameters

    taken = BaselineTraining.model_fields.keys() - BaselineParameters.model_fields.keys()
    return Stage1Parameters.model_fields.keys() - taken


def require_weights(parameters: Mapping[str, Any], pipeline: Pipeline) -> None:
    """Make sure that the file of weights is there, for the pipelines that start from it.

    Raises:
        CommandError: where it is not.
    """
    weights = parameters["stage1"]["backbone"]["weights"] if "params:stage1" in pipeline.inputs() else None
    if weights and not Path(weights).expanduser().is_file():
        raise CommandError(
            f"stage1.backbone.weights must be an existing file, got {weights!r}; give its path, "
            "or add --params stage1.backbone.weights=null to start from random weights"
        )


def _paths(name: str, model: type[BaseModel]) -> Iterator[str]:
    """The dotted names of a group of parameters and of everything in it."""
    yield name
    for field, info in model.model_fields.items():
        inner = model_in(info.annotation)
        yield from _paths(f"{name}.{field}", inner) if inner else [f"{name}.{field}"]


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation, which may be optional or a list; none where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def _explain(root: str, mistake: dict[str, Any], known: Sequence[str]) -> str:
    """A mistake that pydantic found, as `<name> must <contract>, got <value>[; <remedy>]`."""
    path = ".".join([root, *map(str, mistake["loc"])])
    # A key of YAML that is a number is no name either.
    if mistake["type"] in ("extra_forbidden", "invalid_key"):
        return _unknown(path, known)
    if mistake["type"] == "missing":
        # Neither an element of a list nor a whole group can be typed.
        is_typed = [name for name in known if f"{name}.".startswith(f"{path}.")] == [path]
        remedy = f"add --params {path}=<value>, or add it" if is_typed else "add it"
        return f"{path} must be given, got nothing; {remedy} to conf/base/parameters_{root}.yml"
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "int_parsing_size":
        message = "Input should be an integer of fewer digits"
    if mistake["type"] == "value_error":
        # Raised by the model itself, which knows names only from its own place in the tree.
        return qualify_names(message, path, known)
    contract = re.sub(r"^[A-Z][a-z]+ should", "must", message).replace("valid dictionary", "mapping")
    contract = re.sub(r" or instance of \w+$", "", contract)
    choices = re.findall(r"'([^']*)'", mistake.get("ctx", {}).get("expected", ""))
    nearest = nearest_names(str(mistake["input"]), choices)
    remedy = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"{path} {contract}, got {show(mistake['input'])}{remedy}"


def qualify_names(message: str, path: str, known: Sequence[str]) -> str:
    """The refusal of a model with every parameter by its full name, so that it can be typed.

    `nesterov must be ...; set momentum=0.9` at `stage1.optimizer` becomes `stage1.optimizer.nesterov must be
    ...; add --params stage1.optimizer.momentum=0.9`. The value that was got is left as it is.

    Args:
        message: in the form `<name> must <contract>, got <value>[; <remedy>]`.
        path: the dotted name of the model.
        known: all dotted names.
    """

    def qualify(text: str) -> str:
        return re.sub(r"(?<![\w.'])[a-z]\w*(\.\w+)*(?![\w'])", replace, text)

    def replace(found: re.Match[str]) -> str:
        # In the middle of a sentence, `name` or `weights` is a word and no parameter.
        is_set = found.string[found.end() :][:1] == "="
        is_word = found.start() and not is_set and not re.search(r"[._]", found[0])
        name = f"{path}.{found[0]}"
        return name if name in known and not is_word else found[0]

    contract, got, rest = message.partition(", got ")
    value, semicolon, remedy = rest.partition("; ")
    typed = re.sub(r"\bset (?=[\w.]+=)", "add --params ", qualify(remedy))
    whole = f"{qualify(contract)}{got}{value}{semicolon}{typed}"
    if whole.startswith("must "):
        return f"{path} {whole}"
    return whole if whole.startswith(f"{path}.") else f"{path}: {whole}"


def _unknown(path: str, known: Sequence[str]) -> str:
    """The refusal of an unknown name, with the nearest in the whole tree, or else the names beside it."""
    group, _, name = path.rpartition(".")
    # The position in a list is not part of the name of a parameter.
    plain_group = re.sub(r"\.\d+(?=\.|$)", "", group)
    nearest = _nearest_path(name, plain_group, known)
    if nearest is None:
        siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == plain_group]
        remedy = f"known are {', '.join(siblings)}"
    else:
        is_beside = nearest.rpartition(".")[0] == plain_group
        suggested = f"{group}.{nearest.rpartition('.')[2]}" if group and is_beside else nearest
        remedy = f"did you mean '{suggested}'?"
    return f"{path} must be a known parameter, got '{name}'; {remedy}"


def _nearest_path(name: str, group: str, known: Sequence[str]) -> str | None:
    """The dotted name whose last part is most like `name`; of several, the one nearest to the group.

    A name of the group itself may be a little less alike: `lr` of an optimizer is meant by its `rl`, and no
    name elsewhere that ends in `rol`.
    """
    ends = dict.fromkeys(path.rpartition(".")[2] for path in known)
    nearest = nearest_names(name, ends, most=len(ends))
    candidates = [path for path in known if path.rpartition(".")[2] in nearest]

    def rank(path: str) -> tuple[float, int]:
        own_group, _, last = path.rpartition(".")
        likeness = SequenceMatcher(None, last, name).ratio()
        return likeness + _BESIDE * (own_group == group), _count_shared(path, group)

    return max(candidates, key=rank, default=None)


def _count_shared(path: str, group: str) -> int:
    """How many parts two dotted names share at the beginning."""
    pairs = zip(path.split("."), group.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def try_views(
    stages: dict[str, dict[str, Any]], image_shape: tuple[int, int, int], storage: str = "squares"
) -> None:
    """Try the transforms of every stage now, so that no stage is refused after another has been trained.

    Args:
        stages: the `transforms` and `view_sizes` of each stage, by its name.
        image_shape: `(height, width, channels)` of the images.
        storage: how they are stored, `squares` or `encoded`.

    Raises:
        CommandError: with a line for each stage whose transforms do not work on images of that shape.
    """
    from supcon_pipeline.core.views.policy import ViewPolicy

    lines = []
    for name, views in stages.items():
        try:
            ViewPolicy(num_views=1, image_shape=image_shape, keeps_aspect=storage == "encoded", **views)
        except InputError as error:
            message = str(error)
            lines.append(
                f"{name}.{message}" if message.startswith("transforms ") else f"{name}.transforms: {message}"
            )
    if lines:
        raise CommandError("\n".join(lines))
