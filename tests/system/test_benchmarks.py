import json
import os
import runpy
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
import pytest
import torch
from benchmarks import growth, loss, metrics, recipe, retrieval
from benchmarks.seeds import aggregate, headline_metrics, side_by_side

from supcon_pipeline.core.checksums import checksum_path
from supcon_pipeline.core.data.images import LabelledImages
from tests.conftest import ROOT

# What runs each script in a second or two, with few processes: each of them imports everything anew.
# What else a script can do is tried without it, or in this process, below.
SMALLEST = {
    "damage": "--pipelines data_prep --kinds json --ways cut --every 9",
    "epoch": "--rounds 1 --num-workers 0 --images 60 --precision float32",
    "growth": "--counts 60 --pipelines data_prep",
    "gpu": "--minutes 5 --parts validation --queries 20 --references 50",
    "gradient_caching": "--plain --cached 4 --micro 2",
    "index": "--references 200 --queries 20 --dims 8 --ef-search 16",
    "loss": "--repeats 1 --rows 64 --rows-alone --beside",
    "memory": "--rounds 1 --backbone resnet_narrow --image-size 32 --batch-size 2 --ways kept",
    "metrics": "--queries 40 --references 60 --dims 8 --classes 2 --ways ours",
    "packing": "--counts 8 --num-photographs 2 --image-size 32",
    "processes": "--counts 2 --batch 4 --rows 64 --gradient 10 --repeats 1 --threads 1",
    "retrieval": "--rows 60 --dims 8 --ways search",
    # Its 314th run is killed soon, and nothing follows.
    "soak": "--first 314 --runs 1 --pipelines data_prep",
    "tsne": "--points 100 --threads 1",
    "views": "--images 60 --repeats 1 --epochs 1 --workers 0 --threads 1 --num-photographs 2",
}
# What scripts else do in processes of their own, each a case of its script.
CASES = {
    "gradient_caching": "--case 4 0",
    "memory": "--way returned --backbone resnet_narrow --image-size 32 --batch-size 2",
}
# What is measured on one GPU beside a validation.
PARTS = {
    "tests": "--workers 0 --tests tests/core/training/test_precision.py",
    "loss": "--rows 64 --tiles 32 --matrix 64",
    "epoch": "--steps 1 --rounds 1 --workers 0 --no-compile "
    "--epoch-changes backbone.name=resnet_narrow loader.batch_size=8",
    "recipe": "--workers 0 --recipe --changes schedule.num_epochs=1 schedule.warmup_epochs=0",
}
METRICS = {
    "run_id": "seed-0",
    "num_images": 359,
    "checkpoint": {"encoder": {"parameters": {"lr": 0.1}}},
    "embedding": {"precision_at_1": 0.9, "intervals": {"precision_at_1": [0.8, 1.0]}},
    "classifier": {
        "accuracy": 0.8,
        "calibrated": {"log_loss": 0.2, "reliability": {"accuracy": [0.5]}},
        "per_class": {"cat": {"f1": 0.7}},
        "confusion_matrix": {"label": [0, 1], "predicted": [0, 1], "count": [1, 1]},
    },
    "baseline": {"classifier": {"accuracy": 0.6}},
}


@pytest.fixture
def _threads() -> Iterator[None]:
    """Scripts set how many threads they are measured with."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])
    cv2.setNumThreads(before[2])


def run_script(
    name: str, arguments: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """The result that a script prints last, as its command would."""
    marker, _, result = last_line(name, arguments, patch, capsys).partition(" ")
    assert marker == "RESULT"
    return json.loads(result)


def last_line(
    name: str, arguments: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The line that a script prints last, as its command would."""
    path = ROOT / f"benchmarks/{name}.py"
    patch.chdir(ROOT)
    patch.setattr(sys, "argv", [str(path), *arguments.split()])
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out.splitlines()[-1]


def numbers(result: Any) -> Iterator[float]:
    """All numbers of a result, wherever they are."""
    if isinstance(result, dict | list):
        for inner in result.values() if isinstance(result, dict) else result:
            yield from numbers(inner)
    elif isinstance(result, float) and not isinstance(result, bool):
        yield result


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", SMALLEST)
def test_a_script_runs_at_its_smallest_and_ends_with_its_result(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_measured(run_script(name, SMALLEST[name], monkeypatch, capsys))


def assert_measured(result: Any) -> None:
    found = list(numbers(result))
    assert found
    assert all(0 <= value < float("inf") for value in found)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", CASES)
def test_a_case_of_a_script_prints_what_it_measures(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_measured(json.loads(last_line(name, CASES[name], monkeypatch, capsys)))


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", PARTS)
def test_a_part_for_one_gpu_saves_what_it_finds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last_line("gpu", f"--part {name} --seconds-left 200 --out {tmp_path} {PARTS[name]}", monkeypatch, capsys)
    assert_measured(json.loads((tmp_path / f"{name}.json").read_text()))


def test_every_script_is_tried() -> None:
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == {
        *SMALLEST,
        # Of a finished run.
        "export",
        "seeds",
        # Parts of gpu.
        "on_device",
        "recipe",
        # A part of soak.
        "accidents",
    }


def test_a_recipe_is_tried_on_fewer_wrong_and_unequally_many_labels() -> None:
    labels, splits = np.tile(np.arange(3), 200), np.repeat(np.array(["train", "test"], object), 300)
    data = LabelledImages(labels.astype(np.uint8).reshape(-1, 1, 1, 1), labels, splits)
    thinned = recipe.thin_out(data, fraction=0.5, imbalance=4, seed=0)
    is_test = thinned.splits == "test"
    assert np.bincount(thinned.labels[~is_test]).tolist() == [50, 25, 12]
    assert np.array_equal(thinned.labels[is_test], labels[300:])
    assert np.array_equal(thinned.images.flatten(), thinned.labels)
    wrong = recipe.mislabel(thinned, share=0.4, seed=0)
    is_wrong = wrong.labels != thinned.labels
    assert not is_wrong[is_test].any()
    assert 0.3 < is_wrong[~is_test].mean() < 0.5
    assert set(wrong.labels) == {0, 1, 2}


def test_the_baseline_of_a_recipe_is_scored_as_the_recipe_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = (
        "backbone.name=resnet_narrow schedule.num_epochs=1 schedule.warmup_epochs=0 validation_interval=2"
    )
    options = "--baseline logit_adjustment=1 --imbalance 2 --wrong 0.2 --test --workers 0"
    *_, validation, test = run_script("recipe", f"{options} --changes {changes}", monkeypatch, capsys)
    assert (validation["case"], test["case"]) == ("validation", "test")
    assert all(0 < test[name] < 1 for name in ("knn_1", "knn_20", "map_at_r", "classifier"))
    assert test["log_loss"] > 0


def test_the_seeds_of_a_killed_comparison_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = json.loads(
        (project / "data/08_reporting/tiny/metrics.json/2026-01-01/metrics.json").read_text()
    )
    for folder in list(project.glob("data/**/2026-01-01")):
        folder.rename(folder.with_name("seed-0"))
    record = project / "data/08_reporting/tiny/run_record.json/seed-0/run_record.json"
    record.write_text(record.read_text().replace("2026-01-01", "seed-0"))
    checksum_path(record).unlink()
    (project / "data/08_reporting/tiny/metrics.json/seed-0/metrics.json").unlink()
    result = run_script("seeds", f"--env tiny --seeds 0 --folder {project}", monkeypatch, capsys)
    del result["seconds"]
    assert {name: row["mean"] for name, row in result.items()} == dict(headline_metrics(expected))


def test_the_precisions_of_an_export_are_measured_side_by_side(
    finished_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"--folder {finished_project} --env tiny --rounds 1 --batch 2"
    rows = run_script("export", options, monkeypatch, capsys)
    assert_measured(rows)
    assert [row["precision"] for row in rows] == ["float32", "float16", "int8"]
    assert rows[0]["megabytes"] > 1.8 * rows[1]["megabytes"] > 2.5 * rows[2]["megabytes"]
    assert rows[0]["difference"] < rows[1]["difference"] < rows[2]["difference"] < 0.2


@pytest.mark.usefixtures("_threads")
def test_all_ways_to_compute_the_loss_give_the_same() -> None:
    losses = [loss.measure(way, 32, 1)["loss"] for way in loss.WAYS]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.usefixtures("_threads")
def test_all_ways_to_compute_a_metric_give_the_same() -> None:
    found: dict[str, list[float]] = {}
    for way in (*metrics.WAYS, *metrics.EPOCH_WAYS):
        for name, value in metrics.measure(way, (40, 60, 8, 2))["metrics"].items():
            found.setdefault(name, []).append(value)
    for name in ("precision_at_1", "r_precision", "mean_average_precision", "silhouette", "ami"):
        assert len(found[name]) > 1, name
        assert found[name] == pytest.approx([found[name][0]] * len(found[name]), abs=1e-5), name


def test_all_ways_to_search_and_to_verify_give_the_same() -> None:
    found: dict[str, list[float]] = {}
    for way in retrieval.WAYS:
        for name, value in retrieval.measure(way, 300, 8)["metrics"].items():
            found.setdefault(name, []).append(value)
    for name in ("precision_at_1", "recall_at_10", "mean_average_precision", "auc", "equal_error_rate"):
        assert len(found[name]) > 1, name
        assert found[name] == pytest.approx([found[name][0]] * len(found[name]), abs=1e-4), name


def test_an_exponent_is_the_power_of_the_number_by_which_a_step_grows():
    assert growth.exponent([10, 100], [2, 200], least=0.1) == "2.00"
    assert growth.exponent([10, 100, 200], [7, 5, 10], least=0.1) == "1.00"
    assert growth.exponent([10], [2], least=0.1) == ""
    assert growth.exponent([10, 100], [0.01, 200], least=0.1) == ""


def test_the_memory_of_an_image_is_what_each_adds():
    assert growth.kib_per_image([1024, 2048], [100, 103]) == "3.0"


def test_a_step_has_the_highest_memory_between_its_start_and_its_end():
    log = growth.MemoryLog(os.getpid(), interval=0.001)
    log.close()
    log.samples = [(1, 5 * 2**20), (2, 3 * 2**20), (3, 4 * 2**20), (4, 9 * 2**20)]
    assert log.peak_mib(1.5, 2.5) == 4
    assert growth.resident_bytes(os.getpid()) > 2**20


def test_made_images_differ_and_are_the_same_each_time():
    images, again = (growth.MadeImagesDataset(20, 2).load().images for _ in range(2))
    assert len({image.tobytes() for image in images}) == 20
    assert all((image == same).all() for image, same in zip(images, again, strict=True))


def test_numbers_of_a_metrics_file_have_dotted_names():
    assert dict(headline_metrics(METRICS)) == {
        "embedding.precision_at_1": 0.9,
        "classifier.accuracy": 0.8,
        "classifier.calibrated.log_loss": 0.2,
        "baseline.classifier.accuracy": 0.6,
    }


def test_three_seeds_have_a_mean_and_a_standard_deviation_as_by_hand():
    rows = [{"accuracy": 0.5}, {"accuracy": 0.6}, {"accuracy": 0.7}]
    assert aggregate(rows) == {
        "accuracy": {"values": [0.5, 0.6, 0.7], "mean": pytest.approx(0.6), "stdev": pytest.approx(0.1)}
    }
    assert aggregate(rows[::-1])["accuracy"]["stdev"] == pytest.approx(statistics.stdev([0.5, 0.6, 0.7]))


def test_one_seed_has_no_standard_deviation():
    assert aggregate([{"accuracy": 0.5}])["accuracy"] == {"values": [0.5], "mean": 0.5, "stdev": None}


def test_a_metric_that_a_seed_has_not_is_left_out():
    assert list(aggregate([{"accuracy": 0.5, "ami": 0.1}, {"accuracy": 0.5}])) == ["accuracy"]


def test_the_metrics_of_baseline_and_pixels_stand_beside_the_contrastive_ones():
    rows = [
        {"embedding.precision_at_1": x, "baseline.embedding.precision_at_1": y, "pixels.precision_at_1": z}
        for x, y, z in ((0.8, 0.6, 0.4), (0.9, 0.7, 0.4))
    ]
    assert side_by_side(aggregate(rows)) == {
        "embedding.precision_at_1": {
            "contrastive": "0.8500 ± 0.0707",
            "baseline": "0.6500 ± 0.0707",
            "pixels": "0.4000 ± 0.0000",
        }
    }


def test_one_seed_stands_there_without_a_deviation():
    assert side_by_side(aggregate([{"classifier.accuracy": 0.5}])) == {
        "classifier.accuracy": {"contrastive": "0.5000"}
    }
