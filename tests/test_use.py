import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from supcon_pipeline import load_encoder
from tests.conftest import ROOT, read_catalog, run_session
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


@pytest.fixture(scope="module")
def exported(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project, exported once; only to be read."""
    copy = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(finished_project, copy)
    run_session(copy, pipeline_names=["export"])
    return copy


def test_the_files_give_what_evaluation_says_of_the_same_images(exported: Path) -> None:
    from supcon_pipeline.core.export import open_onnx

    catalog = read_catalog(exported)
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


def test_the_check_of_the_export_is_written_for_every_file_and_output(exported: Path) -> None:
    check = read_catalog(exported).load("export_check")
    assert check["num_images"] == 24
    assert [len(outputs) for outputs in check["differences"].values()] == [1, 1, 3, 3]
    assert all(0 <= value < 1e-2 for outputs in check["differences"].values() for value in outputs.values())


def test_the_code_of_the_model_card_runs_beside_the_file(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = exported.glob("data/06_models/tiny/classifier_onnx.onnx/*/classifier_onnx.onnx")
    monkeypatch.chdir(model.parent)
    code = code_block(read_catalog(exported).load("model_card"))
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out.strip() in ("0", "1", "2")


def test_an_export_that_differs_by_more_than_the_tolerance_is_refused(exported: Path) -> None:
    params: dict[str, Any] = {"export": {"tolerance": 1e-12}}
    nodes = ["export.check_export"]
    with pytest.raises(click.ClickException, match="must differ from the original by at most"):
        run_session(exported, pipeline_names=["export"], node_names=nodes, runtime_params=params)


def test_the_example_of_the_documentation_runs(
    finished_project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = code_block((ROOT / "docs/use.md").read_text())
    assert len([line for line in code.splitlines() if line]) == 5
    first, second, *_ = write_digits(tmp_path)
    project = tmp_path / "project"
    shutil.copytree(finished_project, project)
    first.rename(project / "query.png")
    second.rename(project / "other.png")
    monkeypatch.chdir(project)
    monkeypatch.setenv("KEDRO_ENV", "tiny")
    exec(code, {})
    assert re.search(r"similarity 0\.\d+\n.*Prediction\(class_name='[012]', prob", capsys.readouterr().out)


def test_the_encoder_of_a_run_gives_the_embeddings_of_its_evaluation(finished_project: Path) -> None:
    catalog = read_catalog(finished_project)
    expected = catalog.load("embeddings").tensors["embedding"].numpy()[:5]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    encoder = load_encoder(finished_project, env="tiny", run_id="2026-01-01")
    raw = catalog.load("raw_images").images[:5]
    np.testing.assert_allclose(encoder.embed(raw), expected, atol=1e-4)


def test_an_encoder_from_any_file_gives_the_embeddings_of_the_run(exported: Path, tmp_path: Path) -> None:
    paths = write_digits(tmp_path)
    ours = load_encoder(exported, env="tiny")
    for pattern in ("encoder.safetensors", "encoder_onnx.onnx", "classifier_program.pt2"):
        (file,) = exported.glob(f"data/06_models/tiny/{pattern}/*/{pattern}")
        np.testing.assert_allclose(load_encoder(file).embed(paths), ours.embed(paths), atol=1e-4)
    said, expected = load_encoder(file).classify(paths)[0], ours.classify(paths)[0]
    assert said.class_name == expected.class_name
    assert said.probability == pytest.approx(expected.probability, abs=1e-4)


def test_a_run_or_a_file_that_does_not_exist_is_refused(finished_project: Path, tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"run with an encoder \(2026-01-01\), got 'never'"):
        load_encoder(finished_project, env="tiny", run_id="never")
    with pytest.raises(ValueError, match="project_path must be a project or the file of a model"):
        load_encoder(tmp_path / "nowhere")
    (tmp_path / "model.txt").touch()
    with pytest.raises(ValueError, match=r"must end in .safetensors, .onnx, .pt2, got 'model.txt'"):
        load_encoder(tmp_path / "model.txt")


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, supcon_pipeline; sys.exit('torch' in sys.modules or 'kedro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def images_folder(project: Path) -> Path:
    """Six test images of the project by their ids, noise, and a file that is no image."""
    from PIL import Image

    catalog, folder = read_catalog(project), project / "new"
    raw, tested = catalog.load("raw_images"), set(catalog.load("predictions")["id"][:6])
    folder.mkdir()
    for name, image in zip(raw.ids, raw.images, strict=True):
        if name in tested:
            Image.fromarray(image).save(folder / f"{name}.png")
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def inferred(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project after a folder of new images; only to be read."""
    copy = tmp_path_factory.mktemp("inferred") / "project"
    shutil.copytree(finished_project, copy)
    params = {"inference": {"path": str(images_folder(copy))}}
    run_session(copy, pipeline_names=["inference"], runtime_params=params)
    return copy


def test_test_images_as_new_images_are_classified_as_evaluation_did(inferred: Path) -> None:
    catalog = read_catalog(inferred)
    table = catalog.load("inference_predictions")
    table["id"] = [Path(path).stem for path in table["path"]]
    both = table.merge(catalog.load("predictions"), on="id")
    assert len(both) == 6
    assert both["classifier_class"].tolist() == both["predicted_class"].tolist()


def test_the_neighbours_are_those_of_a_search_by_hand(inferred: Path) -> None:
    catalog = read_catalog(inferred)
    table, samples = catalog.load("inference_predictions"), catalog.load("samples")
    rows = catalog.load("embeddings").tensors["embedding"].numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    train = samples[samples["split"] == "train"]
    for row in table[~table["path"].str.endswith("noise.png")].to_dict("records"):
        query = rows[samples.index[samples["id"] == Path(row["path"]).stem][0]]
        cosines = rows[train.index] @ query
        nearest = train.iloc[np.argsort(-cosines)[:5]]
        assert [row[f"nearest_{rank}_id"] for rank in range(1, 6)] == nearest["id"].tolist()
        assert row["nearest_1_class"] == nearest["class_name"].iloc[0]
        assert row["nearest_1_similarity"] == pytest.approx(cosines.max(), abs=1e-5)
        assert row["distance"] == pytest.approx(np.sqrt(2 - 2 * np.sort(cosines)[-10]), abs=1e-4)


def test_recall_and_export_are_checked_on_images_of_every_class(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples of the project come class by class."""
    from supcon_pipeline.core import export, index
    from supcon_pipeline.core.parameters_use import ExportParameters, IndexParameters
    from supcon_pipeline.pipelines.export.nodes import check_export
    from supcon_pipeline.pipelines.index.nodes import measure_index

    catalog, seen = read_catalog(exported), {}
    samples, rows = catalog.load("samples"), catalog.load("embeddings").tensors["embedding"].numpy()
    images, labels = catalog.load("prepared_images"), samples["label"].to_numpy()
    assert (np.diff(labels) >= 0).all()
    parameters = catalog.load("run_record")["parameters"]

    def classes_of(chosen: np.ndarray, among: np.ndarray) -> list[int]:
        return [int(labels[(among == row).reshape(len(among), -1).all(axis=1)][0]) for row in chosen]

    def describe(_: Any, references: np.ndarray, queries: np.ndarray, k: int) -> dict[str, Any]:  # noqa: ARG001
        seen["index"] = classes_of(queries, rows)
        return {}

    def run(_: Any, chosen: np.ndarray) -> dict[str, np.ndarray]:
        seen["export"] = classes_of(chosen, images)
        raise StopIteration

    monkeypatch.setattr(index, "describe_index", describe)
    few = IndexParameters.model_validate({**parameters["index"], "num_queries": 6})
    parts = [catalog.load(name) for name in ("train_index", "embeddings", "samples")]
    measure_index(*parts, few)
    monkeypatch.setattr(export, "run_module", run)
    models = [catalog.load(name) for name in ("encoder", "classifier")]
    checked = ExportParameters.model_validate({**parameters["export"], "num_checked": 6})
    with pytest.raises(StopIteration):
        check_export(*models, None, None, None, None, images, samples, checked)
    assert seen == {"index": [0, 0, 1, 1, 2, 2], "export": [0, 0, 1, 1, 2, 2]}


def test_an_index_of_another_encoder_is_refused(inferred: Path) -> None:
    from supcon_pipeline.core.parameters_use import InferenceParameters
    from supcon_pipeline.pipelines.inference.nodes import search_new_images

    catalog = read_catalog(inferred)
    names = ("new_embeddings", "embeddings", "train_index", "train_index_card", "samples", "new_samples")
    parts = {name: catalog.load(name) for name in (*names, "dataset_card")}
    params = InferenceParameters.model_validate(catalog.load("run_record")["parameters"]["inference"])
    assert len(search_new_images(**parts, params=params)) == 7
    parts["train_index_card"] = {**parts["train_index_card"], "model_hash": "another"}
    with pytest.raises(ValueError, match=r"model_hash of the train_index must be .*, got another; run index"):
        search_new_images(**parts, params=params)


def test_what_is_no_digit_is_farther_from_the_training_images_than_digits(inferred: Path) -> None:
    table = read_catalog(inferred).load("inference_predictions")
    is_noise = table["path"].str.endswith("noise.png")
    assert table.loc[is_noise, "distance"].min() > table.loc[~is_noise, "distance"].max()


def test_the_percentile_counts_validation_images_as_a_slow_loop_does(inferred: Path) -> None:
    catalog = read_catalog(inferred)
    table, splits = catalog.load("inference_predictions"), catalog.load("samples")["split"].to_numpy()
    rows = catalog.load("embeddings").tensors["embedding"].numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    train, validation = rows[splits == "train"], rows[splits == "validation"]
    known = [np.sort(np.linalg.norm(train - row, axis=1))[9] for row in validation]
    expected = [100 * np.mean([other <= distance for other in known]) for distance in table["distance"]]
    assert table["distance_percentile"].tolist() == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_the_table_agrees_with_the_encoder_from_python(inferred: Path) -> None:
    table = read_catalog(inferred).load("inference_predictions")
    predictions = load_encoder(inferred, env="tiny").classify(table["path"].tolist())
    assert [each.class_name for each in predictions] == table["classifier_class"].tolist()
    probabilities = [each.probability for each in predictions]
    assert probabilities == pytest.approx(table["classifier_probability"].tolist(), abs=1e-4)


def test_an_image_that_cannot_be_read_is_listed_and_the_others_go_on(inferred: Path) -> None:
    catalog = read_catalog(inferred)
    (row,) = catalog.load("unreadable_images").to_dict("records")
    assert row["path"].endswith("broken.png")
    assert "file must be an image" in row["reason"]
    assert len(catalog.load("inference_predictions")) == len(catalog.load("inference_table")) == 7
    assert "broken.png" in catalog.load("inference_gallery")


def test_the_words_at_the_end_count_classes_and_unreadable_images(
    inferred: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from supcon_pipeline.pipeline_registry import register_pipelines
    from supcon_pipeline.results import print_results

    run_params = {"run_id": "it", "env": "tiny"}
    print_results(run_params, register_pipelines()["inference"], read_catalog(inferred), inferred)
    words = capsys.readouterr().out
    for part in ("7 images: ", "1 could not be read", "inference_gallery.html", "--pipelines export"):
        assert part in words


def test_inference_without_a_folder_says_what_it_needs(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(finished_project, project)
    with pytest.raises(click.ClickException, match=r"inference.path must be a folder of images, got None"):
        run_session(project, pipeline_names=["inference"])


def test_images_of_another_kind_are_scored_beside_the_test_images(
    finished_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    shutil.copytree(finished_project, project)
    params = {"out_of_distribution": {"path": str(images_folder(project))}}
    run_session(project, pipeline_names=["out_of_distribution"], runtime_params=params)
    catalog = read_catalog(project)
    scores, found = catalog.load("outside_scores"), catalog.load("out_of_distribution_metrics")
    outside = scores[scores["is_outside"]]["distance"].to_numpy()
    inside = scores[~scores["is_outside"]]["distance"].to_numpy()
    assert (len(inside), len(outside)) == (found["num_inside"], found["num_outside"]) == (24, 7)
    rows = catalog.load("embeddings").tensors["embedding"].numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    split = catalog.load("samples")["split"].to_numpy()
    apart = np.linalg.norm(rows[split == "test"][:, None] - rows[split == "train"], axis=2)
    np.testing.assert_allclose(inside, np.sort(apart, axis=1)[:, 9], atol=1e-3)
    wins = (outside[:, None] > inside) + (outside[:, None] == inside) / 2
    assert found["auroc"] == pytest.approx(wins.mean())
    assert "broken.png" in catalog.load("unreadable_outside_images")["path"].item()
    assert f"AUROC {found['auroc']:.4f}" in capsys.readouterr().out


def test_images_of_another_kind_need_a_folder(project: Path) -> None:
    with pytest.raises(click.ClickException, match=r"out_of_distribution.path must be a folder of images"):
        run_session(project, pipeline_names=["out_of_distribution"])


def test_inference_reads_an_older_run_by_its_versions(inferred: Path) -> None:
    record = read_catalog(inferred).load("run_record")
    assert record["base"] == "2026-01-01"
    assert record["base_artifacts"]["train_index"] == "2026-01-01"


def test_names_that_are_no_text_are_written_as_escapes(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    (name,) = write_digits(folder, 1)
    name.rename(os.fsdecode(os.fsencode(folder) + b"/good\xff.png"))
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.png")).write_bytes(b"no image")
    for pipeline, read, unreadable in (
        ("inference", "inference_table", "unreadable_images"),
        ("out_of_distribution", "outside_samples", "unreadable_outside_images"),
    ):
        params = {pipeline: {"path": str(folder)}}
        run_session(project, pipeline_names=[pipeline], runtime_params=params)
        catalog = read_catalog(project)
        assert catalog.load(read)["path"].item() == str(folder / "good\\xff.png")
        assert catalog.load(unreadable)["path"].item() == str(folder / "bad\\xff.png")
