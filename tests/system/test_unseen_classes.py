"""Whole runs on classes that training never saw."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from supcon_pipeline import load_encoder
from supcon_pipeline.core.messages import InputError
from tests.conftest import copy_project, make_project, read_catalog, run_session
from tests.tiny import write_digits

CATALOG = """
raw_images:
  type: tests.tiny.TinyImagesDataset
  num_classes: 7
  num_images: 20
"""


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which everything has run, with seven classes of which train has three."""
    project = make_project(tmp_path_factory.mktemp("unseen") / "project")
    (project / "conf/tiny/catalog.yml").write_text(CATALOG)
    folder = tmp_path_factory.mktemp("new")
    write_digits(folder, 4)
    given = {"data_prep": {"split_by": "class"}, "inference": {"path": str(folder)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPCON_RUN_ID", "a")
        run_session(project, pipeline_names=["__default__", "inference"], runtime_params=given)
    return project


@pytest.fixture(scope="module")
def catalog(unseen: Path) -> Any:
    return read_catalog(unseen)


def test_no_class_is_in_two_splits_and_the_card_says_so(catalog: Any) -> None:
    samples, card = catalog.load("samples"), catalog.load("dataset_card")
    classes = samples.groupby("split")["class_name"].unique()
    assert {split: len(names) for split, names in classes.items()} == {"train": 3, "validation": 2, "test": 2}
    assert len(set(np.concatenate(classes.to_list()))) == 7
    (sentence,) = (text for text in card["warnings"] if "train has none of the classes" in text)
    assert "stage 2, k-NN among train, confusion, calibration" in sentence


def test_what_needs_no_classifier_is_exported_by_the_command_of_the_refusal_and_of_the_log(
    unseen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    project, params = copy_project(unseen, tmp_path), {"export": {"num_checked": 8}}
    nodes = "export.export_encoder,export.convert_encoder,export.export_backbone"
    command = f"kedro run --env tiny --pipelines export --nodes {nodes}"
    with pytest.raises(InputError) as error:
        run_session(project, pipeline_names=["export"], runtime_params=params)
    (logged,) = (record.getMessage() for record in caplog.records if record.name == "kedro.pipeline.node")
    assert str(error.value).endswith(f"{command} --params export.num_checked=8")
    assert logged.endswith(f"{command} --params export.num_checked=8")
    given = {"inference": {"path": str(write_digits(tmp_path / "new", 2)[0].parent)}}
    run_session(project, pipeline_names=["inference"], runtime_params=given)
    assert f"  {command} " in capsys.readouterr().out
    run_session(project, pipeline_names=["export"], node_names=nodes.split(","))


def test_test_images_are_searched_among_the_others_of_test(catalog: Any) -> None:
    samples, found = catalog.load("samples"), catalog.load("neighbours")
    splits = samples["split"].to_numpy()
    assert set(splits[found["query"]]) == set(splits[found["reference"]]) == {"test"}
    assert (found["query"] != found["reference"]).all()
    labels, nearest = samples["label"].to_numpy(), found[found["rank"] == 0]
    recall = np.mean(labels[nearest["query"]] == labels[nearest["reference"]])
    metrics = catalog.load("metrics")
    assert metrics["embedding"]["recall_at_1"] == pytest.approx(recall)
    assert metrics["num_queries"] == len(catalog.load("query_scores")) == metrics["num_images"]


def test_what_needs_known_classes_steps_aside(catalog: Any) -> None:
    assert catalog.load("classifier").tensors == {}
    assert len(catalog.load("stage2_history")) == len(catalog.load("predictions")) == 0
    metrics = catalog.load("metrics")
    for group in ("classifier", "knn", "without_near_duplicates"):
        assert group not in metrics
    assert "classifier" not in metrics["baseline"]
    assert {"recall_at_1", "mean_average_precision_at_r"} <= metrics["baseline"]["embedding"].keys()
    assert set(metrics["pixels"]) == {"recall_at_1", "intervals"}
    assert "classifier" not in metrics["checkpoint"]
    assert "embedding.mean_average_precision_at_r" in catalog.load("baseline_history")


def test_the_report_shows_what_there_is(catalog: Any) -> None:
    report = catalog.load("report")
    assert "recall_<wbr>at_<wbr>1<" in report
    assert "Are two images of one class?" in report
    for absent in ("Confusion of the classifier", "Calibration", "Does more labelling help?", "Classifiers"):
        assert f"<h3>{absent}</h3>" not in report


def test_verification_states_both_errors_at_the_threshold_that_validation_chose(
    unseen: Path, catalog: Any
) -> None:
    report, samples = catalog.load("verification_metrics"), catalog.load("samples")
    assert report["validation"]["fmr"] <= report["false_match_rate"] == 0.01
    rows = catalog.load("embeddings").tensors["embedding"].numpy()[samples["split"] == "test"]
    labels = samples.loc[samples["split"] == "test", "label"].to_numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), 1)
    is_accepted = (rows[first] * rows[second]).sum(axis=1) >= report["threshold"]
    is_match = labels[first] == labels[second]
    assert report["test"]["fmr"] == pytest.approx(is_accepted[~is_match].mean(), abs=1e-3)
    assert report["test"]["fnmr"] == pytest.approx(1 - is_accepted[is_match].mean(), abs=1e-3)
    # With two validation classes, no lower rate can be promised.
    assert report["unknown"]["promised_false_accept_rate"] == pytest.approx(1 / 3)
    assert load_encoder(unseen, env="tiny").match_threshold == report["threshold"]


def test_new_images_are_searched_among_all_images_of_the_run(catalog: Any) -> None:
    assert catalog.load("train_index").ntotal == len(catalog.load("samples"))
    table: pd.DataFrame = catalog.load("inference_predictions")
    assert len(table) == 4
    assert table["is_unknown"].dtype == bool
    assert "classifier_class" not in table
    assert set(table["nearest_1_id"]) <= set(catalog.load("samples")["id"])


def test_the_encoder_is_exported_alone(unseen: Path) -> None:
    with pytest.raises(InputError, match=r"classifier must have weights, .*--nodes export\.export_encoder,"):
        run_session(unseen, pipeline_names=["export"])
    run_session(
        unseen,
        pipeline_names=["export"],
        node_names=["export.export_encoder", "export.convert_encoder", "export.export_backbone"],
    )


def test_the_metrics_can_be_compared_with_those_of_another_run(unseen: Path, kedro: Any) -> None:
    listed = json.loads(kedro(unseen, "runs", "list", "--env", "tiny", "--json").stdout)
    (run,) = (run for run in listed if run["id"] == "a")
    assert "embedding.recall_at_1" in run["metrics"]
    shown = kedro(unseen, "runs", "show", "a", "--env", "tiny").stdout
    assert "embedding recall@1" in shown


@pytest.fixture(scope="module")
def enrolled(unseen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after two classes were enrolled, and new images of these were searched for."""
    project = copy_project(unseen, tmp_path_factory.mktemp("enrolled"))
    later, new = tmp_path_factory.mktemp("later"), tmp_path_factory.mktemp("query")
    for digit in (8, 9):
        files = write_digits(later / f"digit {digit}", 16, [digit])
        for file in files[10:]:
            file.rename(new / file.name)
    (later / "digit 9/broken.png").write_bytes(b"no image")
    given = {"enrol": {"path": str(later)}, "inference": {"path": str(new)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPCON_RUN_ID", "b")
        run_session(project, pipeline_names=["enrol"], runtime_params=given)
        patch.setenv("SUPCON_RUN_ID", "c")
        run_session(project, pipeline_names=["inference"], runtime_params=given)
    return project


def test_enrolled_classes_are_found_and_the_old_index_stays(enrolled: Path) -> None:
    catalog = read_catalog(enrolled)
    num_images = len(catalog.load("samples"))
    assert catalog.load("train_index").ntotal == num_images
    assert catalog.load("gallery_index").ntotal == num_images + 20
    assert catalog.load("unreadable_enrolled_images")["image"].str.endswith("broken.png").tolist() == [True]
    table = catalog.load("inference_predictions")
    assert len(table) == 12
    expected = "digit " + table["image"].map(lambda name: Path(name).name[0])
    assert np.mean(table["nearest_1_class"] == expected) > 0.7
    assert set(table["knn_class"]) & {"digit 8", "digit 9"}
    assert "later" in catalog.load("inference_gallery")


def test_the_index_can_be_searched_by_faiss_alone(enrolled: Path) -> None:
    import faiss

    (path,) = enrolled.glob("data/06_models/tiny/gallery_index.faiss/b/gallery_index.faiss")
    (rows,) = enrolled.glob("data/06_models/tiny/gallery_rows.parquet/b/gallery_rows.parquet")
    index, table = faiss.read_index(str(path)), pd.read_parquet(rows)
    card = read_catalog(enrolled).load("gallery_index_card")
    assert (card["metric"], card["size"], card["num_enrolled"]) == ("inner product", index.ntotal, 20)
    query = load_encoder(enrolled, env="tiny").embed(table["id"].iloc[-1])
    similarities, found = index.search(query, 2)
    assert found[0, 0] == len(table) - 1
    assert similarities[0, 0] == pytest.approx(1, abs=1e-5)
    assert table["class_name"].iloc[-1] == "digit 9"


def test_enrolling_nothing_is_refused_with_what_to_type(unseen: Path) -> None:
    with pytest.raises(DatasetError, match=r"enrol\.path must be given, .* --params enrol\.path="):
        read_catalog(unseen).load("enrol_images")
