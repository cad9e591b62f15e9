import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from supcon_pipeline import load_encoder
from supcon_pipeline.pipeline_registry import register_pipelines
from tests.conftest import ROOT, copy_project, made_in, read_catalog, run_session
from tests.tiny import write_digits


def code_block(markdown: str) -> str:
    """The first block of Python in a page."""
    found = re.search(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert found
    return found.group(1)


def highest_shares(logits: np.ndarray) -> np.ndarray:
    """The highest probability of each row."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    highest: np.ndarray = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
    return highest


CHANGED = {"stage1": {"loss": {"temperature": 0.456}}, "stage2": {"label_smoothing": 0.345}}


@pytest.fixture(scope="module")
def exported(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project, exported by runs with other parameters of training; only to be read."""
    copy = copy_project(finished_project, tmp_path_factory.mktemp("exported"))
    for name in ("evaluation", "export"):
        run_session(copy, pipeline_names=[name], runtime_params=CHANGED)
    return copy


@pytest.fixture(scope="module")
def catalog(exported: Path) -> Any:
    """What the exported project can be read with."""
    return read_catalog(exported)


def test_the_export_runs_alone_from_what_the_catalog_holds(exported: Path, catalog: Any) -> None:
    run_id = catalog.load("run_record")["run_id"]
    assert run_id != "2026-01-01"
    assert register_pipelines()["export"].all_outputs() <= made_in(exported, run_id)


def test_the_files_give_what_evaluation_says_of_the_same_images(catalog: Any) -> None:
    from supcon_pipeline.core.inference.export import open_onnx

    samples, predictions = catalog.load("samples"), catalog.load("predictions")
    images = catalog.load("prepared_images")[(samples["split"] == "test").to_numpy()]
    expected = predictions["predicted"].to_numpy()
    temperature = catalog.load("classifier_metrics")["calibrated"]["temperature"]
    assert abs(temperature - 1) > 0.01
    for outputs in (
        open_onnx(catalog.load("classifier_onnx"))(images),
        catalog.load("classifier_program").open()(images),
    ):
        np.testing.assert_array_equal(outputs["probabilities"].argmax(axis=1), expected)
        np.testing.assert_allclose(highest_shares(outputs["logits"]), predictions["probability"], atol=1e-4)
        calibrated = highest_shares(outputs["logits"] / temperature)
        np.testing.assert_allclose(outputs["probabilities"].max(axis=1), calibrated, atol=1e-4)


def test_the_check_of_the_export_is_written_for_every_file_and_output(catalog: Any) -> None:
    check = catalog.load("export_check")
    assert check["num_images"] == 24
    assert [len(outputs) for outputs in check["differences"].values()] == [1, 1, 3, 3]
    assert all(0 <= value < 1e-2 for outputs in check["differences"].values() for value in outputs.values())


def test_the_numbers_of_the_model_card_are_those_of_the_run(catalog: Any) -> None:
    card, metrics, check = (catalog.load(name) for name in ("model_card", "metrics", "export_check"))
    rows = re.findall(r"\| (\w+) (\w+) \| [^|]+ \| ([\d.]+) \| ([\d.]+) \|", card)
    assert len(rows) == 6
    for group, metric, value, baseline in rows:
        assert (value, baseline) == (
            f"{metrics[group][metric]:.4f}",
            f"{metrics['baseline'][group][metric]:.4f}",
        )
    for name, outputs in check["differences"].items():
        for output, difference in outputs.items():
            assert f"| {name} | {output} | {difference:.2g} |" in card
    temperature = catalog.load("classifier_metrics")["calibrated"]["temperature"]
    assert f"divided by {temperature:.4g}," in card
    assert f"`{metrics['data_hash']}`" in card
    assert f"On {metrics['num_images']} test images" in card
    parameters = json.loads(card.split("```json\n")[1].split("```")[0])
    assert parameters["encoder"] == metrics["checkpoint"]["encoder"]["parameters"]


def test_a_model_says_the_parameters_of_its_training_and_not_of_the_run_that_reads_it(
    project: Path, catalog: Any, finished_catalog: Any
) -> None:
    run_session(project, node_names=["visualization.write_report"], runtime_params=CHANGED)
    report = read_catalog(project).load("report")
    trained = finished_catalog.load("run_record")["parameters"]
    checkpoints = catalog.load("metrics")["checkpoint"]
    assert checkpoints["encoder"]["parameters"] == trained["stage1"]
    assert checkpoints["classifier"]["parameters"] == trained["stage2"]
    assert checkpoints["baseline"]["parameters"]["schedule"] == trained["stage1"]["schedule"]
    for page in (catalog.load("model_card"), report.replace("&#34;", '"')):
        assert '"num_epochs": 2' in page
        assert '"temperature": 0.456' not in page
        assert '"label_smoothing": 0.345' not in page


def test_the_code_of_the_model_card_runs_beside_the_file(
    exported: Path,
    catalog: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (model,) = exported.glob("data/06_models/tiny/classifier_onnx.onnx/*/classifier_onnx.onnx")
    monkeypatch.chdir(model.parent)
    code = code_block(catalog.load("model_card"))
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out.strip() in ("0", "1", "2")


def test_an_export_that_differs_by_more_than_the_tolerance_is_refused(exported: Path, tmp_path: Path) -> None:
    params: dict[str, Any] = {"export": {"tolerance": 1e-12}}
    nodes, project = ["export.check_export"], copy_project(exported, tmp_path)
    with pytest.raises(click.ClickException, match="must differ from the original by at most"):
        run_session(project, pipeline_names=["export"], node_names=nodes, runtime_params=params)


def test_the_example_of_the_documentation_runs(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = code_block((ROOT / "docs/use.md").read_text())
    assert len([line for line in code.splitlines() if line]) == 6
    first, second, *_ = write_digits(tmp_path)
    first.rename(project / "query.png")
    second.rename(project / "other.png")
    monkeypatch.chdir(project)
    monkeypatch.setenv("KEDRO_ENV", "tiny")
    exec(code, {})
    assert re.search(r"similarity 0\.\d+\n.*Prediction\(class_name='[012]', prob", capsys.readouterr().out)


def test_the_example_of_the_readme_gives_the_loss_of_pytorch_metric_learning() -> None:
    from pytorch_metric_learning.losses import SupConLoss

    code = code_block((ROOT / "README.md").read_text())
    assert len([line for line in code.splitlines() if line]) == 4
    names: dict[str, Any] = {}
    exec(code, names)
    labels = names["torch"].tensor([0, 0, 1, 1, 2, 2]).repeat_interleave(2)
    expected = SupConLoss(temperature=0.1)(names["projections"].flatten(0, 1), labels)
    assert float(names["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_encoder_of_a_run_gives_the_embeddings_of_its_evaluation(
    finished_project: Path, finished_catalog: Any
) -> None:
    expected = finished_catalog.load("embeddings").tensors["embedding"].numpy()[:5]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    encoder = load_encoder(finished_project, env="tiny", run_id="2026-01-01")
    raw = finished_catalog.load("raw_images").images[:5]
    np.testing.assert_allclose(encoder.embed(raw), expected, atol=1e-4)


def test_an_encoder_from_any_file_gives_the_embeddings_of_the_run(exported: Path, tmp_path: Path) -> None:
    paths = write_digits(tmp_path)
    ours = load_encoder(exported, env="tiny")
    for pattern in ("encoder.safetensors", "encoder_onnx.onnx", "classifier_program.pt2"):
        (file,) = exported.glob(f"data/06_models/tiny/{pattern}/*/{pattern}")
        loaded = load_encoder(file, trust=True)
        np.testing.assert_allclose(loaded.embed(paths), ours.embed(paths), atol=1e-4)
    said, expected = loaded.classify(paths)[0], ours.classify(paths)[0]
    assert said.class_name == expected.class_name
    assert said.probability == pytest.approx(expected.probability, abs=1e-4)


def test_the_run_of_the_variable_is_the_one_whose_encoder_is_loaded(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPCON_RUN_ID", "never")
    with pytest.raises(click.ClickException, match=r"SUPCON_RUN_ID must be a run of .*, got 'never'"):
        load_encoder(exported, env="tiny")


def test_a_run_or_a_file_that_does_not_exist_is_refused(finished_project: Path, tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"run with an encoder, got 'never'"):
        load_encoder(finished_project, env="tiny", run_id="never")
    with pytest.raises(
        ValueError, match="project_path must be the folder of a project, a folder with the data/ of runs or"
    ):
        load_encoder(tmp_path / "nowhere")
    (tmp_path / "model.txt").touch()
    with pytest.raises(ValueError, match=r"must end in .safetensors, .onnx, .pt2, got 'model.txt'"):
        load_encoder(tmp_path / "model.txt")


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, supcon_pipeline; sys.exit('torch' in sys.modules or 'kedro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recall_and_export_are_checked_on_images_of_every_class(
    catalog: Any, finished_catalog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples of the project come class by class."""
    from supcon_pipeline.core.inference import export
    from supcon_pipeline.core.parameters.inference import ExportParameters, IndexParameters
    from supcon_pipeline.core.search import index
    from supcon_pipeline.pipelines.export.nodes import check_export
    from supcon_pipeline.pipelines.index.nodes import measure_index

    seen: dict[str, list[int]] = {}
    samples, rows = catalog.load("samples"), catalog.load("embeddings").tensors["embedding"].numpy()
    prepared, labels = catalog.load("prepared_images"), samples["label"].to_numpy()
    assert (np.diff(labels) >= 0).all()
    # A record has the parameters of what ran.
    parameters = finished_catalog.load("run_record")["parameters"] | catalog.load("run_record")["parameters"]

    def classes_of(chosen: np.ndarray, among: np.ndarray) -> list[int]:
        return [int(labels[(among == row).reshape(len(among), -1).all(axis=1)][0]) for row in chosen]

    def describe(_: Any, references: np.ndarray, queries: np.ndarray, k: int) -> dict[str, Any]:  # noqa: ARG001
        seen["index"] = classes_of(queries, rows)
        return {}

    def compare(*_: Any, images: np.ndarray, tolerance: float) -> Any:  # noqa: ARG001
        seen["export"] = classes_of(images, prepared)
        raise StopIteration

    monkeypatch.setattr(index, "describe_index", describe)
    few = IndexParameters.model_validate({**parameters["index"], "num_queries": 6})
    # The evaluation before the export has embedded anew, and nothing has indexed that.
    parts = [finished_catalog.load(name) for name in ("train_index", "embeddings", "samples")]
    measure_index(*parts, few)
    monkeypatch.setattr(export, "compare_exports", compare)
    models = [catalog.load(name) for name in ("encoder", "classifier")]
    program, onnx = export.ModelProgram(None, {"temperature": 1.0}), catalog.load("encoder_onnx")
    checked = ExportParameters.model_validate({**parameters["export"], "num_checked": 6})
    with pytest.raises(StopIteration):
        check_export(*models, None, onnx, program, None, prepared, samples, checked)
    assert seen == {"index": [0, 0, 1, 1, 2, 2], "export": [0, 0, 1, 1, 2, 2]}
