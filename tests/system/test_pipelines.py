"""Pipelines one by one, on what others have made."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from supcon_pipeline.pipeline_registry import register_pipelines
from tests.conftest import copy_project, made_in, make_project, read_catalog, run_session
from tests.tiny import write_digits

RunAlone = Callable[[str], tuple[Path, str]]


@pytest.fixture(scope="module")
def run_alone(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> RunAlone:
    """Run a pipeline once by itself; gives a project, only to be read, and the run id."""

    @cache
    def run(name: str) -> tuple[Path, str]:
        project = copy_project(finished_project, tmp_path_factory.mktemp(name))
        write_digits(project / "new")
        write_digits(project / "later/other", 3, [8])
        params = {task: {"path": str(project / "new")} for task in ("inference", "out_of_distribution")}
        params["enrol"] = {"path": str(project / "later")}
        return project, run_session(project, pipeline_names=[name], runtime_params=params)

    return run


# The export takes longest, and is held to this beside the other tests of what it makes.
@pytest.mark.parametrize("name", sorted(register_pipelines().keys() - {"__default__", "export"}))
def test_each_pipeline_runs_alone_from_what_the_catalog_holds(run_alone: RunAlone, name: str) -> None:
    assert register_pipelines()[name].all_outputs() <= made_in(*run_alone(name))


def test_evaluation_alone_repeats_the_metrics_of_the_run_it_reads(
    run_alone: RunAlone, finished_catalog: Any
) -> None:
    project, run_id = run_alone("evaluation")
    after = read_catalog(project).load("metrics")
    assert after == {**finished_catalog.load("metrics"), "run_id": run_id}


def test_the_report_has_what_belongs_to_its_run_and_does_without_the_rest(
    project: Path, finished_catalog: Any
) -> None:
    title, heading = "Learning-rate range test of stage 1", "Images of another kind"
    labelling = "Does more labelling help?"
    page = finished_catalog.load("report")
    assert title not in page
    assert heading not in page
    assert labelling in page
    # Runs of earlier versions have no such curve.
    for folder in list(project.glob("data/*/tiny/learning_curve*")):
        shutil.rmtree(folder)
    write_digits(project / "new")
    params = {"out_of_distribution": {"path": str(project / "new")}}
    run_session(project, pipeline_names=["stage1_lr_finder", "out_of_distribution"], runtime_params=params)
    run_session(project, node_names=["visualization.write_report"])
    catalog = read_catalog(project)
    found, page = catalog.load("out_of_distribution_metrics"), catalog.load("report")
    assert title in page
    assert f"AUROC {found['auroc']:.4f}" in page
    assert labelling not in page
    # They are of the images and of the encoder that there were, and of no other.
    run_session(project, pipeline_names=["stage1", "swa", "stage2", "evaluation", "visualization"])
    page = read_catalog(project).load("report")
    assert title in page
    assert heading not in page
    assert labelling in page


def test_what_is_made_for_the_report_is_in_that_of_the_same_command(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    range_test = [node.name for node in register_pipelines()["stage2_lr_finder"].nodes]
    names = ["visualization", "stage2_lr_finder"]
    run_session(project, pipeline_names=names, node_names=["visualization.write_report", *range_test])
    suggested = read_catalog(project).load("stage2_lr_suggestion")["suggested_lr"]
    assert f"--params stage2.optimizer.lr={suggested:.2g}" in capsys.readouterr().out
    assert "Learning-rate range test of stage 2" in read_catalog(project).load("report")


def test_the_range_test_of_both_stages_leaves_curve_suggestion_and_picture(
    run_alone: RunAlone,
) -> None:
    project, _ = run_alone("lr_finder")
    catalog = read_catalog(project)
    for stage in ("stage1", "stage2"):
        check_range_test(catalog, stage)


def test_the_range_test_of_stage_1_needs_nothing_but_prepared_images(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    run_session(project, pipeline_names=["data_prep"])
    run_session(project, pipeline_names=["stage1_lr_finder"])
    check_range_test(read_catalog(project), "stage1")


def check_range_test(catalog: Any, stage: str) -> None:
    curve, suggestion = catalog.load(f"{stage}_lr_curve"), catalog.load(f"{stage}_lr_suggestion")
    assert curve["lr"].is_monotonic_increasing
    assert curve["lr"].min() <= suggestion["suggested_lr"] <= curve["lr"].max()
    assert catalog.load(f"{stage}_lr_figure").startswith(b"\x89PNG")


def test_a_training_from_weights_stands_beside_what_they_were_worth(
    project: Path, finished_catalog: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = project / "data/06_models/tiny/encoder.safetensors/2026-01-01/encoder.safetensors"
    # The embedding that training makes of them has a layer of its own, which they have not.
    params = {"stage1": {"backbone": {"weights": str(encoder)}, "embedding_dim": 16}}
    names = ["stage1", "published", "baseline", "swa", "stage2", "evaluation"]
    run_session(project, pipeline_names=names, runtime_params=params)
    catalog, before = read_catalog(project), finished_catalog.load("metrics")
    published = catalog.load("metrics")["published"]
    # The run that made the weights has scored them, and trained the same classifier on them.
    assert published["embedding"] == before["embedding"]
    assert published["classifier"] == before["classifier"]
    for stage in ("stage1", "baseline"):
        assert catalog.load(f"{stage}_history")["epoch"].tolist() == [0, 1, 2]
    assert catalog.load("stage1_history")["loss"].isna().tolist() == [True, False, False]
    assert "published" in capsys.readouterr().out
