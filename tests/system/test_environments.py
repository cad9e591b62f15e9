"""The experiments that come with the project."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import BaseModel

from supcon_pipeline.core.views.policy import ViewPolicy
from supcon_pipeline.core.views.presets import PRESETS
from tests.conftest import ROOT, make_project, read_catalog

EXPERIMENTS = sorted(
    path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name not in ("base", "local")
)


Reader = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def read_parameters(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The parameters of an experiment, read once."""
    project = make_project(tmp_path_factory.mktemp("experiments") / "project", ())

    @cache
    def read(experiment: str) -> dict[str, Any]:
        parameters = read_catalog(project, experiment).load("parameters")
        return {
            name: value.model_dump() if isinstance(value, BaseModel) else value
            for name, value in parameters.items()
        }

    return read


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_parameters_of_an_experiment_are_valid_and_its_views_are_of_the_size_of_its_images(
    read_parameters: Reader, experiment: str
) -> None:
    # Reading the catalog validates the parameters.
    parameters = read_parameters(experiment)
    for stage in ("stage1", "stage2"):
        for size in (parameters["data_prep"]["image_size"], 20):
            policy = ViewPolicy(parameters[stage]["transforms"], 1, (size, size, 3))
            assert policy(np.zeros((1, size, size, 3), np.uint8), 0).shape == (1, 1, size, size, 3)


@pytest.mark.parametrize("experiment", ["cifar10", "cifar100"])
def test_the_full_recipe_is_that_of_small_images(read_parameters: Reader, experiment: str) -> None:
    parameters = read_parameters(experiment)
    backbone = parameters["stage1"]["backbone"]
    assert (backbone["name"], backbone["stem"]) == ("resnet18", "small_image")
    assert parameters["data_prep"]["image_size"] == 32
    assert parameters["stage1"]["ema"] == {"decay_per_epoch": 0.3, "is_raw_validated": False}
    assert parameters["stage1"]["precision"] == parameters["stage2"]["precision"] == "auto"


@pytest.mark.parametrize(
    ("experiment", "name"),
    [("images_scratch", "photograph"), ("cifar10", "small_image"), ("cifar100", "small_image")],
)
def test_the_views_of_a_recipe_are_those_of_the_preset_for_its_images(
    read_parameters: Reader, experiment: str, name: str
) -> None:
    own = yaml.safe_load((ROOT / "conf" / experiment / "parameters.yml").read_text())
    assert own["stage1"]["transforms"] == name
    parameters = read_parameters(experiment)
    assert [transform["args"] for transform in parameters["stage1"]["transforms"]] == [
        transform["args"] for transform in PRESETS[name]
    ]


def test_no_experiment_repeats_what_base_says(read_parameters: Reader) -> None:
    base = read_parameters("base")
    for experiment in EXPERIMENTS:
        own = yaml.safe_load((ROOT / "conf" / experiment / "parameters.yml").read_text())
        assert list(_repeated(own, base)) == [], experiment


@pytest.mark.parametrize(
    ("experiment", "other"), [("cifar10", "cifar100"), ("cifar10_fast", "cifar100_fast")]
)
def test_a_pair_of_experiments_differs_in_its_images_alone(experiment: str, other: str) -> None:
    for name in ("parameters.yml", "catalog.yml"):
        expected = (ROOT / "conf" / experiment / name).read_text()
        for word in ("CIFAR-10", "CIFAR10", "cifar10"):
            expected = re.sub(rf"{word}\b", f"{word}0", expected)
        assert (ROOT / "conf" / other / name).read_text() == expected


def _repeated(own: dict[str, Any], base: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            yield from _repeated(value, base[name], f"{path}{name}.")
        elif name in base and base[name] == value:
            yield path + name
