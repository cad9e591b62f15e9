import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
import yaml

from supcon_pipeline import load_encoder
from tests.conftest import copy_project, read_catalog, run_session
from tests.system.browser import needs_chromium, open_browser, watch
from tests.tiny import write_digits


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
    copy = copy_project(finished_project, tmp_path_factory.mktemp("inferred"))
    params = {"inference": {"path": str(images_folder(copy))}}
    run_session(copy, pipeline_names=["inference"], runtime_params=params)
    return copy


@pytest.fixture(scope="module")
def catalog(inferred: Path) -> Any:
    """What the run over new images can be read with."""
    return read_catalog(inferred)


def test_test_images_as_new_images_are_classified_as_evaluation_did(catalog: Any) -> None:
    table = catalog.load("inference_predictions")
    table["id"] = [Path(path).stem for path in table["image"]]
    both = table.merge(catalog.load("predictions"), on="id")
    assert len(both) == 6
    assert both["classifier_class"].tolist() == both["predicted_class"].tolist()


def test_the_neighbours_are_those_of_a_search_by_hand(catalog: Any) -> None:
    table, samples = catalog.load("inference_predictions"), catalog.load("samples")
    rows = catalog.load("embeddings").tensors["embedding"].numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    train = samples[samples["split"] == "train"]
    for row in table[~table["image"].str.endswith("noise.png")].to_dict("records"):
        query = rows[samples.index[samples["id"] == Path(row["image"]).stem][0]]
        cosines = rows[train.index] @ query
        nearest = train.iloc[np.argsort(-cosines)[:5]]
        assert [row[f"nearest_{rank}_id"] for rank in range(1, 6)] == nearest["id"].tolist()
        assert row["nearest_1_class"] == nearest["class_name"].iloc[0]
        assert row["nearest_1_similarity"] == pytest.approx(cosines.max(), abs=1e-5)
        assert row["distance"] == pytest.approx(np.sqrt(2 - 2 * np.sort(cosines)[-10]), abs=1e-4)


def test_the_probability_of_the_neighbours_is_the_one_that_evaluation_has_measured(catalog: Any) -> None:
    table, samples = catalog.load("inference_predictions"), catalog.load("samples")
    knn = catalog.load("run_record")["parameters"]["inference"]["knn"]
    rows = catalog.load("embeddings").tensors["embedding"].numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    train = samples[samples["split"] == "train"]
    calibration = catalog.load("knn_metrics")["calibrated"]["temperature"]
    for row in table[~table["image"].str.endswith("noise.png")].to_dict("records"):
        cosines = rows[train.index] @ rows[samples.index[samples["id"] == Path(row["image"]).stem][0]]
        nearest = np.argsort(-cosines)[: knn["k"]]
        weights = np.exp(cosines[nearest] / knn["temperature"])
        classes = sorted(set(samples["class_name"]))
        votes = np.array([weights[train["class_name"].iloc[nearest] == name].sum() for name in classes])
        votes = (len(nearest) * votes / votes.sum() + 1 / len(classes)) / (len(nearest) + 1)
        scaled = votes ** (1 / calibration)
        assert row["knn_probability"] == pytest.approx(scaled.max() / scaled.sum(), rel=1e-3)
        assert row["knn_class"] == classes[int(scaled.argmax())]


def test_the_table_for_a_spreadsheet_is_read_as_it_was_written(inferred: Path, tmp_path: Path) -> None:
    catalog = read_catalog(inferred)
    table = catalog.load("inference_predictions")
    names = dict(zip(sorted(set(table["knn_class"])), ("007", "NA", "None", "1.0"), strict=False))
    named = [column for column in table if column.endswith("_class")]
    table[named] = table[named].replace(names)
    catalog["inference_table"]._filepath = tmp_path / "table.csv"
    catalog["inference_table"]._version = None
    catalog.save("inference_table", table)
    pd.testing.assert_frame_equal(catalog.load("inference_table"), table, check_dtype=False)


def test_an_index_of_another_encoder_is_refused(catalog: Any) -> None:
    from supcon_pipeline.core.parameters.inference import InferenceParameters
    from supcon_pipeline.pipelines.inference.nodes import search_new_images

    names = ("new_embeddings", "embeddings", "train_index", "train_index_card", "samples", "new_samples")
    enrolled = ("gallery_index", "gallery_rows", "enrolled_embeddings")
    parts = {name: catalog.load(name) for name in (*names, *enrolled, "dataset_card", "knn_metrics")}
    assert all(parts[name] is None for name in enrolled)
    params = InferenceParameters.model_validate(catalog.load("run_record")["parameters"]["inference"])
    assert len(search_new_images(**parts, params=params)) == 7
    parts["train_index_card"] = {**parts["train_index_card"], "model_hash": "another"}
    with pytest.raises(
        ValueError,
        match=r"model_hash of the train_index must be .*, got another; type: kedro run --pipelines index",
    ):
        search_new_images(**parts, params=params)


def test_what_is_no_digit_is_farther_from_the_training_images_than_digits(catalog: Any) -> None:
    table = catalog.load("inference_predictions")
    is_noise = table["image"].str.endswith("noise.png")
    assert table.loc[is_noise, "distance"].min() > table.loc[~is_noise, "distance"].max()


def test_the_percentile_counts_validation_images_as_a_slow_loop_does(catalog: Any) -> None:
    table, splits = catalog.load("inference_predictions"), catalog.load("samples")["split"].to_numpy()
    rows = catalog.load("embeddings").tensors["embedding"].numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    train, validation = rows[splits == "train"], rows[splits == "validation"]
    known = [np.sort(np.linalg.norm(train - row, axis=1))[9] for row in validation]
    expected = [100 * np.mean([other <= distance for other in known]) for distance in table["distance"]]
    assert table["distance_percentile"].tolist() == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_the_table_agrees_with_the_encoder_from_python(inferred: Path, catalog: Any) -> None:
    table = catalog.load("inference_predictions")
    predictions = load_encoder(inferred, env="tiny").classify(table["image"].tolist())
    assert [each.class_name for each in predictions] == table["classifier_class"].tolist()
    probabilities = [each.probability for each in predictions]
    assert probabilities == pytest.approx(table["classifier_probability"].tolist(), abs=1e-4)


def test_an_image_that_cannot_be_read_is_listed_and_the_others_go_on(catalog: Any) -> None:
    (row,) = catalog.load("unreadable_images").to_dict("records")
    assert row["image"].endswith("broken.png")
    assert "file must be an image" in row["reason"]
    assert len(catalog.load("inference_predictions")) == len(catalog.load("inference_table")) == 7
    assert "broken.png" in catalog.load("inference_gallery")


@needs_chromium
def test_the_gallery_page_opens_from_disk_and_shows_every_image(inferred: Path) -> None:
    (gallery,) = inferred.glob("data/08_reporting/tiny/inference_gallery.html/*/inference_gallery.html")
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 900})
        errors, requests = watch(page), []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(gallery.as_uri())
        articles = page.query_selector_all("article")
        assert len(articles) == 7
        for picture in page.query_selector_all("img"):
            page.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=picture)
        assert all(len(article.query_selector_all(".nearest img")) >= 5 for article in articles)
        assert "broken.png" in page.text_content("table")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert errors == []
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def test_the_words_at_the_end_count_classes_and_unreadable_images(
    inferred: Path, catalog: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from supcon_pipeline.pipeline_registry import register_pipelines
    from supcon_pipeline.results import print_results

    run_params = {"run_id": "it", "env": "tiny"}
    print_results(run_params, register_pipelines()["inference"], catalog, inferred)
    words = capsys.readouterr().out
    for part in ("7 images: ", "1 could not be read", "inference_gallery.html", "--pipelines export"):
        assert part in words


def test_inference_without_a_folder_says_what_it_needs(project: Path) -> None:
    with pytest.raises(click.ClickException, match=r"inference.path must be a folder of images, got None"):
        run_session(project, pipeline_names=["inference"])


def test_images_of_another_kind_are_scored_beside_the_test_images(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert "broken.png" in catalog.load("unreadable_outside_images")["image"].item()
    assert f"AUROC {found['auroc']:.4f}" in capsys.readouterr().out


def test_images_of_another_kind_need_a_folder(project: Path) -> None:
    with pytest.raises(click.ClickException, match=r"out_of_distribution.path must be a folder of images"):
        run_session(project, pipeline_names=["out_of_distribution"])


def test_images_of_another_kind_come_from_any_source_and_its_test_split_alone(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "others"
    for split in ("train", "test"):
        for kind in ("a", "b"):
            write_digits(folder / split / kind, 2)
    entry = {
        "type": "supcon_pipeline.datasets.image_folder.ImageFolderDataset",
        "path": str(folder),
    }
    with (project / "conf/tiny/catalog.yml").open("a") as file:
        file.write(yaml.safe_dump({"outside_images": entry}))
    run_session(project, pipeline_names=["out_of_distribution"])
    catalog = read_catalog(project)
    table, found = catalog.load("outside_samples"), catalog.load("out_of_distribution_metrics")
    assert table["image"].str.startswith("test/").all()
    assert found["num_outside"] == len(table) == 4
    assert found["source"] == str(folder)
    scores = catalog.load("outside_scores")
    assert scores.loc[scores["is_outside"], "image"].tolist() == table["image"].tolist()


def test_a_path_that_the_source_does_not_read_is_refused(project: Path) -> None:
    with (project / "conf/tiny/catalog.yml").open("a") as file:
        file.write("inference_images: {type: supcon_pipeline.datasets.digits.DigitsDataset}\n")
    message = "inference.path must be given with an experiment whose inference_images reads a path"
    with pytest.raises(click.ClickException, match=message):
        run_session(project, pipeline_names=["inference"], runtime_params={"inference": {"path": "x"}})


def test_inference_reads_an_older_run_by_its_versions(inferred: Path, catalog: Any, tmp_path: Path) -> None:
    project = copy_project(inferred, tmp_path)
    before = catalog.load("inference_predictions")
    params = {"inference": {"path": str(inferred / "new")}}
    again = ["stage1", "stage2", "swa", "evaluation", "index"]
    newer = run_session(project, pipeline_names=again, runtime_params={"seed": 1})
    for versions, read in (({}, newer), ({"encoder": "2026-01-01"}, "2026-01-01")):
        run_session(project, pipeline_names=["inference"], runtime_params=params, load_versions=versions)
        catalog = read_catalog(project)
        artifacts = catalog.load("run_record")["base_artifacts"]
        assert {artifacts[name] for name in ("encoder", "classifier", "embeddings", "train_index")} == {read}
        assert catalog.load("inference_predictions").equals(before) == (read == "2026-01-01")


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
        assert catalog.load(read)["image"].item() == str(folder / "good\\xff.png")
        assert catalog.load(unreadable)["image"].item() == str(folder / "bad\\xff.png")
