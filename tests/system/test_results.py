import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node, pipeline
from kedro_datasets.json import JSONDataset

from supcon_pipeline.pipeline_registry import register_pipelines
from supcon_pipeline.results import print_results
from tests.conftest import read_catalog, run_session


def test_a_file_outside_the_project_is_shown_by_its_whole_path(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "elsewhere" / "pixel_metrics.json"
    entry = f"\npixel_metrics: {{type: json.JSONDataset, filepath: {file}, versioned: true}}\n"
    with (project / "conf/tiny/catalog.yml").open("a") as catalog:
        catalog.write(entry)
    run_id = run_session(project, node_names=["evaluation.score_pixels"])
    assert f"{file / run_id / file.name}\n" in capsys.readouterr().out


def test_what_is_held_in_memory_is_no_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pipeline([node(lambda: ({}, {}), None, ["kept", "passing"], name="make")])
    kept = JSONDataset(filepath=str(tmp_path / "data/08_reporting/kept.json"))
    catalog = DataCatalog({"kept": kept, "passing": MemoryDataset()})
    print_results({"run_id": "mine", "env": None}, made, catalog, tmp_path)
    words = capsys.readouterr().out
    assert "Run mine has made 1 artifacts:" in words
    assert "kept                 data/08_reporting/kept.json\n" in words


def closing_words(
    project_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], **run_params: Any
) -> str:
    """What is said at the end of a run of a project that has made artifacts of these names."""
    project_path.mkdir(exist_ok=True)
    (project_path / "pyproject.toml").write_text("[tool.kedro]")
    made = pipeline([node(lambda: None, None, names, name="make")])
    files = {name: JSONDataset(filepath=str(project_path / "[raw]" / f"{name}.json")) for name in names}
    print_results({"run_id": "mine", "env": None, **run_params}, made, DataCatalog({**files}), project_path)
    return capsys.readouterr().out


def test_a_suggested_command_can_be_typed_whatever_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"images": {"path": "/my photos/[new]"}, "seed": 1, "stage1": {"backbone": {"pretrained": False}}}
    words = closing_words(tmp_path, capsys, ["report_text"], env="images", runtime_params=given)
    (line,) = (line for line in words.splitlines() if "change a parameter" in line)
    typed = shlex.split(line)
    assert (
        typed[typed.index("--params") + 1]
        == "images.path=/my photos/[new],seed=0,stage1.backbone.pretrained=false"
    )
    (lineage,) = (line for line in words.splitlines() if "kedro viz" in line)
    assert "--env images" in lineage
    assert str(Path("[raw]/report_text.json")) in words


def test_commands_are_those_of_the_environment_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\n  kedro viz run" in closing_words(tmp_path, capsys, ["one"])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "\n  .venv/bin/kedro viz run" in closing_words(tmp_path, capsys, ["one"])


def test_outside_of_a_project_commands_are_those_of_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = pipeline([node(lambda: None, None, ["report"], name="make")])
    report = JSONDataset(filepath=str(tmp_path / "report.json"))
    print_results({"run_id": "mine", "env": "images"}, made, DataCatalog({"report": report}), tmp_path)
    _, _, following = capsys.readouterr().out.partition("Next:\n")
    words = [line.split()[:4] for line in following.splitlines()]
    assert words[:3] == [["supcon_pipeline", "run", "--env", "images"]] * 3
    assert words[3][:2] == ["tensorboard", "--logdir"]


def test_what_would_be_refused_is_not_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--pipelines" not in closing_words(tmp_path, capsys, ["prepared_images"])
    words = closing_words(tmp_path, capsys, ["classifier"])
    assert "--pipelines evaluation" in words
    assert "--pipelines inference" not in words
    assert "--pipelines inference" in closing_words(tmp_path, capsys, ["report"])


def test_another_seed_is_another_one_where_the_files_say_1(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--params seed=1 " in suggested(project, capsys, "evaluation")
    with (project / "conf/tiny/parameters.yml").open("a") as file:
        file.write("\nseed: 1\n")
    assert "--params seed=0 " in suggested(project, capsys, "evaluation")


def suggested(project: Path, capsys: pytest.CaptureFixture[str], *pipelines: str) -> str:
    """What is said at the end of pipelines of a project, all of whose artifacts are of its only run."""
    known = register_pipelines()
    known["visualization.learning_curve"] = known["visualization"].only_nodes(
        "visualization.draw_learning_curve"
    )
    made = sum((known[name] for name in pipelines), Pipeline([]))
    catalog = read_catalog(project)
    capsys.readouterr()
    print_results({"run_id": "2026-01-01", "env": "tiny"}, made, catalog, project)
    return capsys.readouterr().out.partition("Next:\n")[2]


def remove(project: Path, *names: str) -> None:
    for folder in (folder for name in names for folder in project.glob(f"data/*/tiny/{name}.*")):
        shutil.rmtree(folder)


def test_new_images_need_an_index_of_the_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "kedro run --env tiny --pipelines {} --params inference.path=<folder>"
    assert command.format("inference") in suggested(project, capsys, "evaluation")
    # Who evaluates again has none.
    remove(project, "train_index", "train_index_card")
    assert command.format("index,inference") in suggested(project, capsys, "evaluation")
    remove(project, "embeddings", "encoder")
    assert "inference" not in suggested(project, capsys, "evaluation")


def test_what_lacks_artifacts_of_the_run_is_not_suggested(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = "--nodes visualization.write_report"
    assert report in suggested(project, capsys, "visualization.learning_curve")
    assert "--pipelines evaluation" in suggested(project, capsys, "stage2_swa")
    remove(project, "metrics", "baseline_model")
    assert report not in suggested(project, capsys, "visualization.learning_curve")
    assert "--pipelines evaluation" not in suggested(project, capsys, "stage2_swa")


def test_few_artifacts_are_all_listed_and_of_many_those_to_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = closing_words(tmp_path / "08_reporting", capsys, ["encoder_onnx", "model_card"])
    assert "encoder_onnx.json" in words
    made = pipeline([node(lambda: None, None, [f"a{index}" for index in range(11)], name="make")])
    folders = ["08_reporting", *["06_models"] * 10]
    files = {
        f"a{index}": JSONDataset(filepath=str(tmp_path / folder / f"a{index}.json"))
        for index, folder in enumerate(folders)
    }
    print_results({"run_id": "mine", "env": None}, made, DataCatalog({**files}), tmp_path)
    words = capsys.readouterr().out
    assert "11 artifacts, among them:" in words
    assert "a0.json" in words
    assert "a1.json" not in words


def test_after_an_enrolment_comes_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = closing_words(tmp_path, capsys, ["gallery_index", "gallery_rows"])
    _, _, following = words.partition("Next:\n")
    assert "--pipelines inference" in following
    assert "seed=" not in following


@pytest.mark.parametrize("has_classifier", [True, False])
def test_enrolled_classes_are_counted_although_no_classifier_knows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], has_classifier: bool
) -> None:
    found = ["cat", "owl", "owl", "bat"]
    table = pd.DataFrame({"knn_class": found, "is_unknown": [False] * 4})
    if has_classifier:
        table = table.assign(classifier_class=["cat", "cat", "cat", "dog"])
    parts = {
        "inference_predictions": table,
        "unreadable_images": pd.DataFrame(),
        "dataset_card": {"class_names": ["cat", "dog"]},
    }
    made = pipeline([node(lambda: None, None, list(parts)[:2], name="make")])
    catalog = DataCatalog({name: MemoryDataset(part) for name, part in parts.items()})
    print_results({"run_id": "mine", "env": None}, made, catalog, tmp_path)
    words = capsys.readouterr().out
    lacking = "3 by their neighbours of classes that the classifier lacks: owl 2, bat 1\n"
    assert ("4 images: cat 3, dog 1\n" + lacking in words) == has_classifier
    assert ("4 images: owl 2, cat 1, bat 1\n" in words) != has_classifier
