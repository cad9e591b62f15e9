"""What a whole run leaves behind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from supcon_pipeline import load_encoder
from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.metrics.classification import without_tables
from supcon_pipeline.pipeline_registry import register_pipelines
from tests.conftest import make_project, run_session


def test_the_whole_run_makes_every_artifact_under_one_version(finished_project: Path) -> None:
    files = [path for path in finished_project.glob("data/*/tiny/*.*/*/*") if path.is_file()]
    files += finished_project.glob("data/*/tiny/tensorboard/projector/*/projector")
    assert {path.parent.name for path in files} == {"2026-01-01"}
    made = {path.name.partition(".")[0] for path in files}
    assert made == {*register_pipelines()["__default__"].all_outputs(), "run_record"}


def test_metrics_name_the_run_the_data_the_checkpoint_and_every_test_image(finished_catalog: Any) -> None:
    metrics, card = finished_catalog.load("metrics"), finished_catalog.load("dataset_card")
    assert metrics["run_id"] == "2026-01-01"
    assert metrics["data_hash"] == card["data_hash"]
    assert metrics["num_images"] == sum(card["counts"]["test"].values())
    assert metrics["checkpoint"]["encoder"]["run_id"] == "2026-01-01"
    assert metrics["baseline_differs"] == []
    assert {"projection", "embedding", "classifier", "pixels"} <= metrics.keys()
    assert 0 <= metrics["embedding"]["precision_at_1"] <= 1
    assert 0 <= metrics["classifier"]["accuracy"] <= 1


def test_predictions_hold_one_row_per_test_image(finished_catalog: Any) -> None:
    samples, predictions = finished_catalog.load("samples"), finished_catalog.load("predictions")
    assert predictions["id"].tolist() == samples.loc[samples["split"] == "test", "id"].tolist()
    agreement = (predictions["predicted"] == predictions["label"]).mean()
    assert finished_catalog.load("classifier_metrics")["accuracy"] == pytest.approx(agreement)


def test_classifiers_are_scored_alike_and_calibrated(finished_catalog: Any) -> None:
    metrics = finished_catalog.load("metrics")
    groups = [metrics["classifier"], metrics["knn"], metrics["baseline"]["classifier"]]
    names = ("classifier_metrics", "knn_metrics", "baseline_classifier_metrics")
    whole = [finished_catalog.load(name) for name in names]
    assert groups == [without_tables(scores) for scores in whole]
    assert len({frozenset(group) for group in groups}) == 1
    for group in whole:
        low, high = group["intervals"]["accuracy"]
        assert low <= group["accuracy"] <= high
        assert sum(group["calibrated"]["reliability"]["count"]) == metrics["num_images"]
    assert metrics["knn"]["accuracy"] == metrics["embedding"]["knn_accuracy"]


def test_embeddings_name_their_samples(finished_catalog: Any) -> None:
    ids = finished_catalog.load("samples")["id"].tolist()
    for name in ("embeddings", "baseline_embeddings"):
        embeddings = finished_catalog.load(name)
        assert embeddings.metadata["sample_ids"] == ids
        assert len(embeddings.tensors["embedding"]) == len(ids)


def test_the_logits_of_training_images_are_not_kept(finished_catalog: Any) -> None:
    samples, tensors = finished_catalog.load("samples"), finished_catalog.load("baseline_embeddings").tensors
    held_out = samples["split"].isin(["validation", "test"])
    assert tensors["logits_rows"].tolist() == held_out.to_numpy().nonzero()[0].tolist()
    assert len(tensors["logits"]) == held_out.sum()


def test_neighbours_of_every_test_image_are_training_images_nearest_first(finished_catalog: Any) -> None:
    samples, neighbours = finished_catalog.load("samples"), finished_catalog.load("neighbours")
    assert (
        neighbours["query"].drop_duplicates().tolist() == samples.index[samples["split"] == "test"].tolist()
    )
    assert (samples["split"].to_numpy()[neighbours["reference"]] == "train").all()
    for _, group in neighbours.groupby("query"):
        assert group["rank"].tolist() == list(range(10))
        assert group["similarity"].is_monotonic_decreasing
    nearest = neighbours[neighbours["rank"] == 0]
    labels = samples["label"].to_numpy()
    hits = labels[nearest["query"]] == labels[nearest["reference"]]
    assert hits.mean() == pytest.approx(finished_catalog.load("metrics")["embedding"]["precision_at_1"])


def test_suspicious_labels_and_confused_pairs_speak_of_the_samples(finished_catalog: Any) -> None:
    samples, suspicious = finished_catalog.load("samples"), finished_catalog.load("suspicious_labels")
    assert suspicious["id"].tolist() == samples["id"].iloc[suspicious["sample"]].tolist()
    assert (suspicious["suggested"] != suspicious["label"]).all()
    assert suspicious["suspicion"].is_monotonic_decreasing
    metrics, pairs = finished_catalog.load("classifier_metrics"), finished_catalog.load("confused_pairs")
    num_wrong = (1 - metrics["accuracy"]) * finished_catalog.load("metrics")["num_images"]
    assert pairs["count"].sum() == pytest.approx(num_wrong)


def test_the_learning_curve_ends_at_the_accuracy_of_k_nn_on_all_training_images(
    finished_catalog: Any,
) -> None:
    curve, card = finished_catalog.load("learning_curve"), finished_catalog.load("dataset_card")
    last = curve[curve["classifier"] == "k-NN"].iloc[-1]
    assert last["accuracy"] == finished_catalog.load("metrics")["knn"]["accuracy"]
    assert last["num_images"] == sum(card["counts"]["train"].values())
    assert curve["images_per_class"].unique().tolist() == [1, 2, 5, 10, 20, last["images_per_class"]]


def test_tensorboard_has_the_scalars_of_both_stages(finished_project: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stage, metric in (("stage1", "epoch/embedding.precision_at_1"), ("stage2", "epoch/accuracy")):
        folder = finished_project / "data/08_reporting/tiny/tensorboard" / stage / "2026-01-01"
        events = EventAccumulator(str(folder)).Reload()
        assert len(events.Scalars(metric)) == 2
        assert {"step/loss", "step/lr", "step/images_per_second"} <= set(events.Tags()["scalars"])


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_the_same_seed_gives_the_same_metrics_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPCON_RUN_ID", "mine")
    needed = ["data_prep", "stage1", "swa", "stage2", "published", "baseline", "evaluation"]
    written = []
    for name in ("once", "again"):
        project = make_project(tmp_path / name)
        run_session(project, pipeline_names=needed)
        (metrics,) = project.glob("data/08_reporting/tiny/metrics.json/*/metrics.json")
        written.append(metrics.read_bytes())
    assert written[0] == written[1]


def test_the_record_of_a_run_holds_its_parameters_and_its_experiment(finished_catalog: Any) -> None:
    record = finished_catalog.load("run_record")
    assert record["experiment"] == "tiny"
    assert record["parameters"]["stage1"]["schedule"]["num_epochs"] == 2
    assert json.loads(json.dumps(record)) == record


def test_a_byte_that_was_flipped_ends_a_run_in_one_line(project: Path) -> None:
    (path,) = project.glob("data/06_models/tiny/encoder.safetensors/*/encoder.safetensors")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = f"^encoder.safetensors of run 2026-01-01 must be as it was saved, .*: rm -r {path.parent}$"
    with pytest.raises(CommandError, match=line):
        run_session(project, pipeline_names=["evaluation"], node_names=["evaluation.embed_samples"])
    with pytest.raises(InputError, match=line):
        load_encoder(project, env="tiny")
