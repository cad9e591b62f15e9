"""The rules that every node and graph keeps."""

import ast
import inspect
import subprocess
import sys
import textwrap
from graphlib import TopologicalSorter
from typing import get_type_hints

import pytest
from kedro.framework.project import find_pipelines, pipelines

from supcon_pipeline.core.pages.pictures import PICTURES
from supcon_pipeline.pipeline_registry import ON_GPU, register_pipelines
from tests.conftest import ROOT, bootstrap

PIPELINES = register_pipelines()
FUNCTIONS = {node.func.__name__: node.func for pipeline in PIPELINES.values() for node in pipeline.nodes}
HEAVY = ("torch", "torchvision", "albumentations", "timm", "faiss", "matplotlib", "pytorch_metric_learning")


def test_the_registry_loads_no_heavy_library():
    code = (
        "import sys; from supcon_pipeline.pipeline_registry import register_pipelines; register_pipelines(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plugins_find_every_node_by_the_name_of_its_package(monkeypatch):
    bootstrap(ROOT)
    # What the last command has asked for.
    monkeypatch.setattr(pipelines, "_requested_pipelines", None)
    # A warning would be an error.
    found = find_pipelines()
    packages = {path.parent.name for path in (ROOT / "src/supcon_pipeline/pipelines").glob("*/pipeline.py")}
    assert found.keys() == {*packages, "__default__"}
    names = {node.name for pipeline in found.values() for node in pipeline.nodes}
    assert names == {node.name for pipeline in PIPELINES.values() for node in pipeline.nodes}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_node_has_hints_that_kedro_can_read_and_at_most_twenty_lines(name):
    hints = get_type_hints(FUNCTIONS[name])
    assert hints.keys() == {*inspect.signature(FUNCTIONS[name]).parameters, "return"}
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(FUNCTIONS[name]))).body
    documentation, *body = function.body
    assert ast.get_docstring(function)
    assert body[-1].end_lineno - documentation.end_lineno <= 20


@pytest.mark.parametrize("name", PIPELINES)
def test_the_namespaces_of_a_pipeline_can_be_deployed_as_tasks_one_after_the_other(name):
    groups = PIPELINES[name].group_nodes_by("namespace")
    assert {group.type for group in groups} == {"namespace"}
    # Raises where two of them wait for each other.
    order = TopologicalSorter({group.name: group.dependencies for group in groups}).static_order()
    assert set(order) == {group.name for group in groups}


def test_every_node_has_a_tag_and_the_tags_of_the_default_pipeline_follow_one_another():
    assert all(node.tags for pipeline in PIPELINES.values() for node in pipeline.nodes)
    default, made = PIPELINES["__default__"], set()
    # What the run reads besides what it makes: the source, the handles and the parameters.
    given = default.inputs()
    for tag in ("data", "training", "evaluation", "report"):
        part = default.only_nodes_with_tags(tag)
        assert part.inputs() <= made | given
        made |= part.all_outputs()
    assert made == default.all_outputs()


def test_every_node_is_placed_on_a_cpu_or_a_gpu():
    nodes = {node for pipeline in PIPELINES.values() for node in pipeline.nodes}
    assert [node.name for node in nodes if len(node.tags & {"cpu", "gpu"}) != 1] == []
    on_gpu = {node.func.__name__ for node in nodes if "gpu" in node.tags}
    assert on_gpu == ON_GPU
    # Whatever computes with a network has the device from one place.
    asked = {name for name, func in FUNCTIONS.items() if "pick_device" in inspect.getsource(func)}
    assert asked <= on_gpu
    default = PIPELINES["__default__"]
    assert "gpu" not in {
        tag for node in default.only_nodes_with_tags("data", "report").nodes for tag in node.tags
    }
    slow = {node.name for node in default.only_nodes_with_tags("training").nodes if "cpu" in node.tags}
    assert slow == {"stage1.draw_training_views"}


def test_every_picture_of_the_report_is_drawn_by_some_pipeline():
    drawn = {name for pipeline in PIPELINES.values() for name in pipeline.all_outputs()}
    assert PICTURES.keys() <= drawn


def test_every_picture_that_visualization_draws_is_in_the_report():
    nodes = PIPELINES["visualization"].nodes
    drawn = {name for node in nodes if node.short_name.startswith("draw_") for name in node.outputs}
    # The interactive map is no file, and has a part of the page for itself.
    assert drawn - {"interactive_map"} <= PICTURES.keys()
