"""Whole runs on classes that training never saw."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from supcon_pipeline import load_encoder
from supcon_pipeline.core.messages import InputError
from tests.conftest import make_project, read_catalog, run_session
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


def test_test_images_are_searched_among_the_others_of_test(catalog: Any) -> None:
    samples, found = catalog.load("samples"), catalog.load("neighbours")
    splits = samples["split"].to_numpy()
    assert set(splits[found["query"]]) == set(splits[found["reference"]]) == {"test"}
    assert (found["query"] != found["reference"]).all()
    labels, nearest = samples["label"].to_numpy(), found[found["rank"] == 0]
    recall = np.mean(labels[nearest["query"]] == labels[nearest["reference"]])
    assert catalog.load("metrics")["embedding"]["recall_at_1"] == pytest.approx(recall)


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
        unseen, pipeline_names=["export"], node_names=["export.export_encoder", "export.convert_encoder"]
    )


def test_the_metrics_can_be_compared_with_those_of_another_run(unseen: Path, kedro: Any) -> None:
    listed = json.loads(kedro(unseen, "runs", "list", "--env", "tiny", "--json").stdout)
    (run,) = (run for run in listed if run["id"] == "a")
    assert "embedding.recall_at_1" in run["metrics"]
    shown = kedro(unseen, "runs", "show", "a", "--env", "tiny").stdout
    assert "embedding recall@1" in shown
