import re
from pathlib import Path
from typing import Any

import click
import pytest
from kedro.framework.cli.cli import KedroCLI

from supcon_pipeline.core.parameters.data import DataPrepParameters
from tests.conftest import Kedro, make_project, read_catalog, run_session


@pytest.fixture(scope="module")
def untouched_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for runs that are refused before they write anything."""
    return make_project(tmp_path_factory.mktemp("untouched") / "project")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stage1": {"optimiser": {"lr": 0.3}}}, "stage1.optimiser .*did you mean 'stage1.optimizer'"),
        ({"stage1": {"optimizer": {"rl": 0.3}}}, "stage1.optimizer.rl .*did you mean 'stage1.optimizer.lr'"),
        (
            {"stage1": {"optimizer": {"name": "adamw", "momentum": 0.5}}},
            "stage1.optimizer.momentum must be null with adamw, got 0.5; it is used by sgd,",
        ),
        (
            {"stage1": {"optimizer": {"name": "adamm"}}},
            "stage1.optimizer.name must be .*'adamw'.* got 'adamm'",
        ),
        (
            {"stage1": {"optimizer": {"name": ["sgd"]}}},
            "stage1.optimizer.name must be .*'sgd'.* got \\['sgd'",
        ),
        ({"stage2": {"optimizer": {"betas": [0.9, 0.9]}}}, "stage2.optimizer.betas must be null with sgd"),
        (
            {"stage2": {"optimizer": {"name": "adam", "betas": [0.9, 1]}}},
            "stage2.optimizer.betas.1 must be less than 1, got 1",
        ),
        (
            {"stage1": {"schedule": {"name": "step", "milestones": [0.8, 0.6]}}},
            "stage1.schedule.milestones must be ascending",
        ),
        ({"stage1": {"schedule": {"patience": 2}}}, "stage1.schedule.patience must be null with cosine"),
        ({"stage_1": {"seed": 0}}, "stage_1 must be a known parameter.*did you mean 'stage1'"),
        ({"stage1": {"loss": {"temperature": 0}}}, r"stage1.loss.temperature must be greater than 0, got 0$"),
        (
            {"stage1": {"transforms": "small_imag"}},
            "stage1.transforms must be a list or the name of a preset, .*; did you mean 'small_image'",
        ),
        ({"stage1": {"num_views": 0}}, "stage1.num_views must be greater than or equal to 1, got 0"),
        ({"stage1": {"loader": {"batch_size": 1}}}, "stage1.loader.batch_size must be .*2, got 1"),
        (
            {"stage1": {"backbone": {"name": "resnet_narow"}}},
            "backbone.name must be .*did you mean 'resnet_narrow'",
        ),
        (
            {"stage1": {"ema": {"decay_per_epoch": 1}}},
            "stage1.ema.decay_per_epoch must be less than 1, got 1",
        ),
        (
            {"stage1": {"schedule": {"num_epochs": 1}}},
            "stage1.schedule.warmup_epochs must be fewer than stage1.schedule.num_epochs",
        ),
        (
            {"stage1": {"transforms": [{"name": "Afine"}]}},
            "transform must be .* got 'Afine'; did you mean 'Affine'",
        ),
        (
            {"data_prep": {"test_fraction": 0.9}},
            "data_prep.validation_fraction . data_prep.test_fraction must be below 1, got 1.05",
        ),
        ({"seed": -1}, "data_prep.seed must be greater than or equal to 0, got -1"),
    ],
)
def test_a_mistake_in_the_parameters_is_one_line_before_anything_runs(
    untouched_project: Path, params: dict[str, object], message: str
) -> None:
    with pytest.raises(click.ClickException) as error:
        run_session(untouched_project, runtime_params=params)
    assert any(re.search(message, line) for line in error.value.message.splitlines())
    assert not (untouched_project / "data").exists()


NORMALIZED = {"transforms": [{"name": "Normalize"}]}
UNEQUAL = {"transforms": [{"name": "RandomCrop", "args": {"height": 4, "width": 4, "p": 0.5}}]}


def test_transforms_of_a_later_stage_that_cannot_work_are_refused_before_anything_runs(
    untouched_project: Path,
) -> None:
    with pytest.raises(click.ClickException) as error:
        run_session(untouched_project, runtime_params={"stage1": UNEQUAL, "stage2": NORMALIZED})
    first, second = error.value.message.splitlines()
    assert re.match(
        r"stage1.transforms must give views of one shape, got \[4, 4, 3\] and .* because of RandomCrop;",
        first,
    )
    assert re.match(
        r"stage2.transforms: transform Normalize must give uint8 images with 3 channels, got float", second
    )
    assert not (untouched_project / "data").exists()


def test_transforms_are_tried_on_the_images_that_the_run_reads_and_of_its_stages_alone(project: Path) -> None:
    large = {"data_prep": {"image_size": 4096}, "stage1": NORMALIZED}
    with pytest.raises(
        click.ClickException, match=r"^stage2.transforms: transform Normalize .*float32 \[8, 8, 3\]"
    ):
        run_session(project, pipeline_names=["stage2"], runtime_params={**large, "stage2": NORMALIZED})


def test_a_parameter_on_the_command_line_changes_that_and_nothing_else(project: Path) -> None:
    before = read_catalog(project).load("run_record")["parameters"]
    params = {"stage1": {"optimizer": {"lr": 0.3}}}
    run_session(project, node_names=["stage1.draw_training_views"], runtime_params=params)
    after = read_catalog(project).load("run_record")["parameters"]
    assert after["stage1"]["optimizer"].pop("lr") == 0.3
    assert before["stage1"]["optimizer"].pop("lr") == 0.1
    assert after == before


def test_the_record_has_all_options_of_what_ran_and_nothing_of_what_did_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project(tmp_path / "project")
    params = {"data_prep": {"seed": 7}, "stage2": {"optimizer": {"momentum": 0.8}}}
    run_session(project, pipeline_names=["data_prep"], runtime_params=params)
    assert "stage2.optimizer.momentum=0.8 changes nothing: no node of this run takes it" in caplog.text
    assert "data_prep.seed" not in caplog.text
    recorded = read_catalog(project).load("run_record")["parameters"]
    assert recorded.keys() == {"data_prep", "seed"}
    assert recorded["data_prep"].keys() == DataPrepParameters.model_fields.keys()
    assert recorded["data_prep"]["seed"] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--env tiny --params stage1.optimiser.lr=0.3",
            "stage1.optimiser must be a known parameter, got 'optimiser'; did you mean 'stage1.optimizer'?",
        ),
        (
            "--env imagse",
            "env must be one of base, cifar10, cifar100, cifar100_fast, cifar10_fast, images, "
            "images_scratch, local, tiny, got 'imagse'; did you mean 'images'?",
        ),
    ],
)
def test_a_mistake_on_the_command_line_shows_no_traceback(
    untouched_project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(untouched_project)
    with pytest.raises(SystemExit) as stopped:
        KedroCLI(untouched_project).main(["run", *arguments.split()])
    assert stopped.value.code == 1
    shown = capfd.readouterr()
    assert shown.err.strip() == f"Error: {message}"
    assert "Traceback" not in shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pipeline_names": ["evalution"]}, "got 'evalution'; did you mean 'evaluation'?"),
        (
            {"node_names": ["evaluation.draw_embedding_map"]},
            "got 'evaluation.draw_embedding_map'; did you mean 'visualization.draw_embedding_map'?",
        ),
        ({"from_nodes": ["draw_confusion_matrix"]}, "did you mean 'visualization.draw_confusion_matrix'?"),
        ({"to_nodes": ["inference.draw_gallery"]}, "that runs, .*; add --pipelines inference"),
        ({"env": "tinny"}, "env must be one of base, .*, tiny, got 'tinny'; did you mean 'tiny'?"),
        ({"env": "?"}, "env must be one of base, cifar10, .*tiny, got '\\?'; choose one of them"),
    ],
)
def test_a_wrong_name_of_a_node_pipeline_or_environment_is_one_line(
    untouched_project: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(click.ClickException, match=message) as error:
        run_session(untouched_project, **arguments)
    assert "\n" not in error.value.message
    assert not (untouched_project / "data").exists()


def test_a_refusal_inside_a_run_is_one_line_too(project: Path, kedro: Kedro) -> None:
    params = "inference.path=nowhere"
    done = kedro(project, "run", "--env", "tiny", "--pipelines", "inference", "--params", params)
    assert done.returncode == 1
    expected = f"Error: inference.path must be a folder of images, got '{project / 'nowhere'}'"
    expected += "; add --params inference.path=<folder>"
    assert done.stderr.splitlines()[-1] == expected
    assert "Traceback" not in done.stdout + done.stderr
