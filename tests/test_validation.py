import copy
import math
import random
import re
import shlex
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import click
import pytest
from kedro.io import DatasetError
from kedro.validation.type_extractor import TypeExtractor
from omegaconf import OmegaConf
from pydantic import BaseModel

from supcon_pipeline.commands import run_command, with_typed_paths
from supcon_pipeline.core.data.packing_store import PackingStore
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.data import ImagesParameters
from supcon_pipeline.datasets.digits import DigitsDataset
from supcon_pipeline.pipeline_registry import register_pipelines
from supcon_pipeline.validation import (
    find_untouched,
    qualify_names,
    require_names,
    require_weights,
    validate_parameters,
)
from tests.conftest import ROOT, make_project, run_session


@pytest.fixture(scope="module")
def models() -> dict[str, type[BaseModel]]:
    found: dict[str, Any] = TypeExtractor(register_pipelines()).extract_types_from_pipelines()
    return {**found, "images": ImagesParameters}


def read_parameters(*assignments: str) -> dict[str, Any]:
    """Those of the default experiment, changed as `--params` does."""
    files = [OmegaConf.load(path) for path in sorted((ROOT / "conf/base").glob("parameters*.yml"))]
    merged = OmegaConf.merge(*files, {"images": {}}, OmegaConf.from_dotlist(list(assignments)))
    parameters: dict[str, Any] = OmegaConf.to_container(merged, resolve=True)  # type: ignore[assignment]
    return parameters


def refusal_of(models: dict[str, type[BaseModel]], *assignments: str) -> str:
    with pytest.raises(click.ClickException) as error:
        validate_parameters(read_parameters(*assignments), models)
    return str(error.value.message)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stage1.temprature=1", "stage1.temprature .*did you mean 'stage1.loss.temperature'"),
        ("stage2.batch_size=1", "stage2.batch_size .*did you mean 'stage2.loader.batch_size'"),
        ("stage1.optimiser.lr=1", "stage1.optimiser .*did you mean 'stage1.optimizer'"),
        ("stage1.optimizer.rl=1", "stage1.optimizer.rl .*did you mean 'stage1.optimizer.lr'"),
        ("evaluation.knn.temprature=1", "did you mean 'evaluation.knn.temperature'"),
        ("temperature=1", r"temperature .*did you mean '[a-z0-9.]*\.temperature'"),
        ("stage3.seed=1", "stage3 must be a known parameter, got 'stage3'; did you mean 'stage[12]'"),
        ("stage1.loss.xyzzy=1", "got 'xyzzy'; known are name, temperature, class_averaged, memory"),
        ("stage1.loss.name=supconn", "stage1.loss.name must be 'supcon', .*; did you mean 'supcon'"),
        ("stage1.precision=float23", "stage1.precision .*; did you mean 'float32'"),
        ("visualization.tsne.seeds=[]", r"visualization.tsne.seeds must have at least 1 item"),
        ("stage1.loader=3", "stage1.loader must be a valid mapping, got 3|must be a mapping, got 3"),
    ],
)
def test_the_nearest_name_is_sought_in_the_whole_tree(
    models: dict[str, type[BaseModel]], assignment: str, message: str
) -> None:
    assert re.search(message, refusal_of(models, assignment))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize(
    "name",
    [
        *("stage1.optimizer.lr", "stage1.loss.temperature", "stage2.optimizer.weight_decay"),
        *("export.tolerance", "visualization.tsne.perplexity", "stage1.max_grad_norm"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(
    models: dict[str, type[BaseModel]], name: str, value: str
) -> None:
    assert re.fullmatch(rf"{name} must be .*, got -?(nan|inf)", refusal_of(models, f"{name}={value}"))


def test_an_argument_of_a_transform_that_is_not_finite_is_refused(models: dict[str, type[BaseModel]]) -> None:
    for args in ("{scale: [.nan, 1.2]}", "{rotate: .inf}", "{translate_percent: {x: .nan, y: 0}}"):
        inner = f"[{{name: OneOf, args: {{transforms: [{{name: Affine, args: {args}}}]}}}}]"
        line = refusal_of(models, f"stage1.transforms={inner}")
        assert re.match(r"stage1.transforms.0: \w+ of Affine must be finite, got .*(nan|inf)", line)


def test_weights_that_are_missing_are_found_before_anything_runs(tmp_path: Path) -> None:
    parameters = read_parameters("stage1.backbone.weights=/no/such.pth")
    pipelines = register_pipelines()
    for name in ("stage1", "baseline", "stage1_lr_finder", "__default__"):
        with pytest.raises(click.ClickException, match=r"must be an existing file, got '/no/such.pth'"):
            require_weights(parameters, pipelines[name])
    require_weights(parameters, pipelines["data_prep"] + pipelines["stage2"])
    found = tmp_path / "found.pth"
    found.touch()
    require_weights(read_parameters(f"stage1.backbone.weights={found}"), pipelines["stage1"])


def test_a_name_inside_a_list_is_answered_with_its_position(models: dict[str, type[BaseModel]]) -> None:
    parameters = read_parameters()
    parameters["stage1"]["transforms"] = [{"name": "HorizontalFlip"}, {"name": "HorizontalFlip", "arg": {}}]
    with pytest.raises(click.ClickException, match=r"did you mean 'stage1\.transforms\.1\.args'\?"):
        validate_parameters(parameters, models)


def test_a_group_that_is_missing_is_answered_with_its_file(models: dict[str, type[BaseModel]]) -> None:
    parameters = read_parameters()
    del parameters["swa"], parameters["index"]["recall_k"]
    with pytest.raises(click.ClickException) as error:
        validate_parameters(parameters, models)
    assert sorted(error.value.message.splitlines()) == [
        "index.recall_k must be given, got nothing; "
        "add --params index.recall_k=<value>, or add it to conf/base/parameters_index.yml",
        "swa must be given, got nothing; add it to conf/base/parameters_swa.yml",
    ]


@pytest.mark.parametrize(
    "assignments",
    [
        ("stage1.optimizer.momentum=0.0",),
        ("stage1.loader.sampler=class_balanced",),
        ("stage2.loader.images_per_class=2",),
        ("stage1.loader.within_category=true",),
        ("stage1.loss.label_smoothing=0.1",),
        ("stage1.loss.logit_adjustment=1.0",),
        ("stage1.loss.class_averaged=true", "stage1.loss.name=sincere"),
        ("stage1.loss.memory={size: 9, warmup_epochs: 20}",),
        ("stage1.loss.memory={size: 9, warmup_epochs: 0}", "stage1.loss.name=sincere"),
        ("stage1.num_views=1", "stage1.loss.name=simclr"),
        (
            "stage1.num_views=1",
            "stage1.loader.sampler=class_balanced",
            "stage1.loader.images_per_class=1",
        ),
        ("stage1.loss.name=simclr", "stage1.mixing={name: mixup, alpha: 1.0, probability: 0.5}"),
        ("stage1.backbone.pretrained=true", "stage1.backbone.weights=my.pth"),
        ("lr_finder.max_lr=0.00001",),
    ],
)
def test_what_a_refusal_says_to_add_is_accepted(
    models: dict[str, type[BaseModel]], assignments: tuple[str, ...]
) -> None:
    found = re.findall(r"--params (\S+=[\w.-]+)", refusal_of(models, *assignments))
    assert found
    for remedy in found:
        validate_parameters(read_parameters(*assignments, remedy), models)


def test_names_in_a_refusal_are_whole_and_what_was_got_is_left_alone() -> None:
    known = ["a.size", "a.loader.seed", "a.num_weights"]
    message = "size must be below num_weights (3), got 'size num_weights'; set size=1 or read loader.seed"
    assert qualify_names(message, "a", known) == (
        "a.size must be below a.num_weights (3), got 'size num_weights'; "
        "add --params a.size=1 or read a.loader.seed"
    )
    assert qualify_names("other must be 1, got 2", "a", known) == "a: other must be 1, got 2"
    assert qualify_names("must be 1, got 2", "a", known) == "a must be 1, got 2"


def test_a_word_in_the_middle_of_a_refusal_is_no_parameter() -> None:
    message = "name must be the name of a preset, got 'x'"
    assert qualify_names(message, "a", ["a.name"]) == "a.name must be the name of a preset, got 'x'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tags": ["trainin"]}, "--tags must name tags of nodes .*, got 'trainin'; did you mean 'training'"),
        ({"tags": ["qqq"]}, "--tags must name tags of nodes .*, got 'qqq'; known are cpu, data, "),
        ({"tags": ["inference"]}, "--tags must name .* of a pipeline that runs.*; add --pipelines inference"),
        (
            {"load_versions": {"encoder": ""}},
            "--load-versions must give encoder the id of a run, got nothing",
        ),
        ({"load_versions": {"encoder": " "}}, "got nothing; leave encoder out to read the newest run"),
        ({"namespaces": ["stage_1"]}, "--namespaces must name .*, got 'stage_1'; did you mean 'stage1'"),
        ({"from_inputs": ["encodr"]}, "--from-inputs must name inputs of nodes .*did you mean 'encoder'"),
        ({"to_outputs": ["reprt"]}, "--to-outputs must name outputs of nodes .*did you mean 'report'"),
        ({"node_names": ["pretrain_encoder"]}, "--nodes .*did you mean 'stage1.pretrain_encoder'"),
        ({"load_versions": {"encodr": "1"}}, "--load-versions must name artifacts .*did you mean 'encoder'"),
        ({"pipeline_names": ["stage1", "stge2"]}, "--pipelines must name pipelines .*did you mean 'stage2'"),
        (
            {"from_nodes": ["evaluation.score_features"], "to_nodes": ["stage1.pretrain_encoder"]},
            "filters must have a node in common, got --from-nodes evaluation.score_features --to-nodes",
        ),
    ],
)
def test_an_unknown_name_in_a_command_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(click.ClickException) as error:
        require_names(arguments)
    assert re.search(message, error.value.message)
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "arguments",
    [
        {"node_names": ["inference.draw_gallery", "stage1.pretrain_encoder"]},
        {"pipeline_names": ["evaluation"], "to_nodes": ["inference.draw_gallery"]},
        {"from_inputs": ["inference_images"]},
        {"to_outputs": ["model_card"]},
        {"namespaces": ["export", "stage2"]},
    ],
)
def test_the_pipelines_that_a_refusal_adds_are_enough(arguments: dict[str, Any]) -> None:
    with pytest.raises(click.ClickException, match="add --pipelines") as error:
        require_names(arguments)
    pipelines = error.value.message.rpartition("--pipelines ")[2].split(",")
    require_names({**arguments, "pipeline_names": pipelines})


def test_a_command_is_quoted_for_the_shell_and_read_back_as_it_was() -> None:
    params = {
        "stage1": {"optimizer": {"lr": 0.1, "betas": None}, "compile": True},
        "images": {"path": "/my images/2 $x"},
        "inference": {"path": "2024"},
    }
    command = run_command(
        ["stage1", "stage1_swa"], "it's", params, {"encoder": "r1"}, is_resumed=True, run_id="r 2"
    )
    variable, program, run, *options = shlex.split(command)
    assert (variable, program, run) == ("SUPCON_RUN_ID=r 2", "kedro", "run")
    values = dict(zip(options[:-1:2], options[1:-1:2], strict=True))
    assert values.pop("--params").split(",") == [
        *("stage1.optimizer.lr=0.1", "stage1.optimizer.betas=null", "stage1.compile=true"),
        *("images.path=/my images/2 $x", 'inference.path="2024"'),
    ]
    assert values == {"--env": "it's", "--pipelines": "stage1,stage1_swa", "--load-versions": "encoder:r1"}
    assert options[-1] == "--only-missing-outputs"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/data/photos #1", "/data/photos #1"),
        ("2024_01_15", "2024_01_15"),
        ("2024", "2024"),
        ("1e3", "1e3"),
        ("true", "true"),
        ("set: final", "set: final"),
        ("[a]", "[a]"),
        ("{a}", "{a}"),
        ("a=b", "a=b"),
        ('"2024"', "2024"),
        ("null", None),
        ("plain", "plain"),
    ],
)
@pytest.mark.parametrize("name", ["images.path", "stage1.backbone.weights"])
def test_a_path_on_the_command_line_is_what_was_typed(typed: str, meant: str | None, name: str) -> None:
    def read(*words: str) -> Any:
        given = {"seed": 3, **OmegaConf.to_container(OmegaConf.from_dotlist([f"{name}={typed}"]))}  # type: ignore[dict-item]
        return OmegaConf.select(OmegaConf.create(with_typed_paths(given, words)), name)

    assert read("kedro", "run", "--params", f"seed=3, {name}={typed}") == meant
    assert read("kedro", "run", f"--params={name}={typed},seed=3") == meant


def test_what_is_no_path_is_read_as_before() -> None:
    given = {"images": {"path": 3}, "seed": 4}
    assert with_typed_paths(given, ["kedro", "run", "--params", "seed=4"]) == given
    assert with_typed_paths(given, ["python", "script.py"]) == given


def test_the_plain_command_has_nothing_but_its_pipelines() -> None:
    assert run_command(["a", "b"]) == "kedro run --pipelines a,b"
    assert run_command(["a"], program=".venv/bin/kedro") == ".venv/bin/kedro run --pipelines a"


def raise_error(error: Exception) -> Any:
    raise error


def test_refused_input_of_a_dataset_or_a_node_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, refusal = make_project(tmp_path / "project"), "images must be whole, got half"
    for place, name in ((PackingStore, "pack"), (DigitsDataset, "load")):
        monkeypatch.setattr(place, name, lambda *_: raise_error(InputError(refusal)))
        with pytest.raises(click.ClickException) as error:
            run_session(project, pipeline_names=["data_prep"])
        assert error.value.message == refusal


def test_a_fault_of_the_program_keeps_its_type_and_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")

    def unpack(*_: Any) -> Any:
        first, second = [1, 2, 3]  # type: ignore[misc]
        return first, second

    monkeypatch.setattr(PackingStore, "pack", unpack)
    with pytest.raises(ValueError, match="too many values to unpack") as error:
        run_session(project, pipeline_names=["data_prep"])
    assert type(error.value) is ValueError
    assert error.traceback[-1].name == "unpack"
    monkeypatch.setattr(
        DigitsDataset, "load", lambda *_: raise_error(ValueError("zip() argument 2 is shorter"))
    )
    with pytest.raises(DatasetError, match=r"zip\(\) argument 2 is shorter") as wrapped:
        run_session(project, pipeline_names=["data_prep"])
    assert not isinstance(wrapped.value, click.ClickException)
    cause: BaseException | None = wrapped.value
    while isinstance(cause, DatasetError):
        cause = cause.__cause__
    assert type(cause) is ValueError


# Of the kinds that a slip of the hand leaves in a file.
ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 1e308, 10**30, math.nan, math.inf, "", " ", "nan", "1e-3", "\x1b[31m", "x" * 5000),
    *([], [1], [[]], {}, {"a": 1}, {1: 2}, {None: 1}, [None], date(2024, 1, 1), {"name": 3}, ["NoOp"]),
    *([{"name": "OneOf", "args": {"transforms": [entry]}}] for entry in (1, {"name": 3}, {"args": 1})),
]
ODD_NAMES: list[Any] = [3, None, "", "a.b", "\x1b[0m", "xyzzy"]


def dotted_paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    tree = dict(enumerate(tree)) if isinstance(tree, list) else tree
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield (*path, key)
        yield from dotted_paths(value, (*path, key))


def mutate(parameters: dict[str, Any], rng: random.Random) -> tuple[Any, ...]:
    """One change of a value or of a name, and where it is."""
    path = rng.choice(list(dotted_paths(parameters)))
    place: Any = parameters
    for key in path[:-1]:
        place = place[key]
    if isinstance(place, dict) and rng.random() < 0.2:
        place[rng.choice(ODD_NAMES)] = place.pop(path[-1])
    else:
        place[path[-1]] = rng.choice(ODD_VALUES)
    return path


@pytest.mark.parametrize("seed", range(6))
def test_parameters_that_a_slip_has_changed_are_right_or_refused_in_lines_that_name_them(
    models: dict[str, type[BaseModel]], seed: int
) -> None:
    rng, untouched = random.Random(seed), read_parameters()
    for _ in range(50):
        parameters = copy.deepcopy(untouched)
        path = mutate(parameters, rng)
        try:
            validate_parameters(parameters, models)
        except click.ClickException as error:
            for line in error.message.splitlines():
                assert re.search(" must .*, got ", line), (path, line)
                assert line.isprintable(), (path, line)
                assert len(line) < 600, (path, line)


def test_a_number_for_a_name_is_an_unknown_name(models: dict[str, type[BaseModel]]) -> None:
    parameters = read_parameters()
    parameters["stage1"][7] = parameters[7] = 1
    with pytest.raises(click.ClickException) as error:
        validate_parameters(parameters, models)
    first, second = error.value.message.splitlines()
    assert first.startswith("7 must be a known parameter, got '7'; known are")
    assert second.startswith("stage1.7 must be a known parameter, got '7'; known are")


def test_escape_codes_in_parameters_do_not_reach_the_terminal(models: dict[str, type[BaseModel]]) -> None:
    parameters = read_parameters()
    parameters["stage1"]["\x1b[2J"] = 1
    with pytest.raises(click.ClickException, match=re.escape(r"stage1.\x1b[2J must be a known parameter")):
        validate_parameters(parameters, models)


@pytest.mark.parametrize(
    ("names", "untouched"),
    [
        (["baseline", "baseline_swa"], ["stage1.optimizer.lr", "stage1.projection"]),
        (["baseline", "stage1"], []),
        (["stage1_lr_finder"], ["baseline.optimizer.lr"]),
    ],
)
def test_what_the_baseline_does_not_take_of_stage_1_is_untouched_by_it(
    names: list[str], untouched: list[str]
) -> None:
    stage1 = {"optimizer": {"lr": 0.2}, "projection": None, "loader": {"batch_size": 8}, "num_views": 1}
    given = {"stage1": stage1, "baseline": {"optimizer": {"lr": 0.3}}}
    chosen = [register_pipelines()[name] for name in names]
    assert list(find_untouched(given, sum(chosen[1:], chosen[0]))) == untouched
