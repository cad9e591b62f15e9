"""The commands of `kedro runs`, on runs that were written down by hand."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

from supcon_pipeline.cli import cli, run
from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.metrics.intervals import class_intervals, mean_intervals
from supcon_pipeline.core.views.presets import PRESETS
from tests.conftest import ROOT, bootstrap

PARAMETERS: dict[str, Any] = {
    "stage1": {
        "optimizer": {"name": "sgd", "lr": 0.1},
        "loss": {"name": "supcon", "temperature": 0.07},
        "compile": False,
    }
}
# What the whole catalog has, as far as the commands care, which takes half a second to read.
CATALOG = """
run_record:
  {type: supcon_pipeline.datasets.run_record.RunRecordDataset, versioned: true,
   filepath: "data/08_reporting/${experiment:}/run_record.json"}
metrics:
  {type: json.JSONDataset, versioned: true, filepath: "data/08_reporting/${experiment:}/metrics.json"}
"{table}_scores":
  {type: pandas.ParquetDataset, versioned: true,
   filepath: "data/07_model_output/${experiment:}/{table}_scores.parquet"}
predictions:
  {type: pandas.ParquetDataset, versioned: true,
   filepath: "data/07_model_output/${experiment:}/predictions.parquet"}
samples:
  {type: pandas.ParquetDataset, versioned: true,
   filepath: "data/02_intermediate/${experiment:}/samples.parquet"}
dataset_card:
  {type: json.JSONDataset, versioned: true, filepath: "data/02_intermediate/${experiment:}/dataset_card.json"}
"{model}r":
  {type: supcon_pipeline.datasets.named_tensors.NamedTensorsDataset, versioned: true,
   filepath: "data/06_models/${experiment:}/{model}r.safetensors"}
"{stage}_tensorboard":
  {type: supcon_pipeline.datasets.tensorboard.TensorBoardDataset, versioned: true,
   filepath: "data/08_reporting/${experiment:}/tensorboard/{stage}"}
"{stage}_progress":
  {type: supcon_pipeline.datasets.progress.ProgressDataset,
   filepath: "data/06_models/${experiment:}/{stage}_progress"}
"""
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


class Runs:
    """Writes runs into a project, and types commands in it."""

    def __init__(self, project: Path):
        self.project, self.count = project, 0
        self.metadata = bootstrap(project)

    def type(self, *words: str, **named: Any) -> Result:
        return CliRunner().invoke(cli, ["runs", *words], obj=self.metadata, **named)

    def printed(self, *words: str, **named: Any) -> str:
        result = self.type(*words, **named)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refusal(self, *words: str) -> str:
        result = self.type(*words)
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
        return result.output.strip()

    def write(self, folder: str, name: str, run_id: str, content: Any, env: str = "tiny") -> Path:
        path = self.project / "data" / folder / env / name / run_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def add(self, run_id: str, env: str = "tiny", accuracy: float | None = None, **changes: Any) -> None:
        """A run with one session, which took ten minutes, and with metrics where it has an accuracy."""
        self.count += 1
        started = START + timedelta(days=self.count)
        task = {
            **_task(env, started, changes.pop("outcome", "completed")),
            **changes.pop("task", {}),
        }
        record = {
            "run_id": run_id,
            "number": self.count,
            "experiment": env,
            "started": started.isoformat(),
            "commit": "c0ffee",
            "base": None,
            "base_artifacts": {},
            "inherited": [],
            **changes,
        }
        path = self.write("08_reporting", "run_record.json", run_id, record, env)
        (path.parent / f"run_record.{task['task']}.json").write_text(json.dumps(task))
        if accuracy is not None:
            self.write("08_reporting", "metrics.json", run_id, _metrics(accuracy), env)


def _task(env: str, started: datetime, outcome: str) -> dict[str, Any]:
    return {
        "task": "t1",
        "outcome": outcome,
        "started": started.isoformat(),
        "ended": (started + timedelta(minutes=10)).isoformat(),
        "command": f"kedro run --env {env}",
        "selection": {},
        "env": env,
        "given": {},
        "parameters": {"stage1": _stage1()},
        "nodes": {"stage1.pretrain_encoder": _node(outcome)},
        "commit": "c0ffee",
        "commit_reason": None,
        "packages": {"torch": "0.0.1"},
        "device": "cpu",
        "threads": 1,
        "host": "nowhere",
        "pid": 1,
    }


def _node(outcome: str, *outputs: str) -> dict[str, Any]:
    return {"outcome": outcome, "started": None, "seconds": 1, "parameters": [], "outputs": list(outputs)}


def _stage1() -> dict[str, Any]:
    """The parameters of stage 1 in the files of the project."""
    return deepcopy(PARAMETERS["stage1"])


def _metrics(accuracy: float) -> dict[str, Any]:
    ends = [round(accuracy - 0.01, 4), round(accuracy + 0.01, 4)]
    groups = {"embedding": "precision_at_1", "classifier": "accuracy"}
    scores = {group: {name: accuracy, "intervals": {name: ends}} for group, name in groups.items()}
    return {"data_hash": "d1", "num_images": 100, "baseline": {"classifier": {"accuracy": 0.5}}, **scores}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    project = tmp_path / "project"
    for name in ("base", "local", "tiny", "other"):
        (project / "conf" / name).mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", project)
    shutil.copy(ROOT / ".telemetry", project)
    shutil.copy(ROOT / "conf/logging.yml", project / "conf")
    (project / "src").mkdir()
    (project / "conf/base/catalog.yml").write_text(CATALOG)
    (project / "conf/base/parameters.yml").write_text(yaml.safe_dump(PARAMETERS))
    return Runs(project)


def test_the_newest_run_is_listed_first_with_its_metrics_and_duration(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    runs.add("b1", outcome="failed")
    header, *lines = runs.printed("list").splitlines()
    assert header.split()[:4] == ["run", "when", "experiment", "outcome"]
    assert [line.split()[0] for line in lines] == ["b1", "a1"]
    assert "failed" in lines[0]
    assert lines[1].split()[4:] == ["completed", "0.9000", "0.9000", "0:10:00"]


def test_experiments_are_listed_together_or_one_alone(runs: Runs) -> None:
    runs.add("a1")
    runs.add("b1", env="other")
    runs.add("c1")
    runs.add("d1", env="base")
    assert [run["id"] for run in json.loads(runs.printed("list", "--json"))] == ["d1", "c1", "b1", "a1"]
    assert [run["id"] for run in json.loads(runs.printed("list", "--json", "--env", "other"))] == ["b1"]
    assert runs.printed("list", "--env", "other").splitlines()[1].split()[3] == "other"
    assert "did you mean 'other'?" in runs.refusal("list", "--env", "othr")


def test_files_of_an_experiment_without_runs_need_not_be_utf_8(runs: Runs) -> None:
    runs.add("a1")
    (runs.project / "conf/other/parameters.yml").write_bytes("seed: 1 # größer".encode("latin-1"))
    assert [run["id"] for run in json.loads(runs.printed("list", "--json"))] == ["a1"]


def test_json_has_all_headline_metrics(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    (described,) = json.loads(runs.printed("list", "--json"))
    assert described == {
        "id": "a1",
        "experiment": "tiny",
        "when": "2026-03-02T10:00:00+00:00",
        "outcome": "completed",
        "duration": 600.0,
        "metrics": {"embedding.precision_at_1": 0.9, "classifier.accuracy": 0.9},
        "commit": "c0ffee",
        "base": None,
    }


def test_a_project_without_runs_says_so(runs: Runs) -> None:
    assert runs.printed("list") == "No runs yet; type: kedro run\n"
    assert runs.printed("list", "--json") == "[]\n"
    assert "got 'x'; see them with: kedro runs list" in runs.refusal("show", "x")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["outcome=failed"], ["c1"]),
        (["outcome!=failed"], ["b1", "a1"]),
        (["classifier.accuracy>0.85"], ["a1"]),
        (["classifier.accuracy<=0.9", "classifier.accuracy>0.1"], ["b1", "a1"]),
        (["stage1.optimizer.lr=0.5"], ["b1"]),
        (["stage1.loss.name=supcon", "when>=2026-03-03"], ["c1", "b1"]),
        (["when=2026-03-02"], ["a1"]),
        (["when<=2026-03-03"], ["b1", "a1"]),
        (["when>2026-03-02"], ["c1", "b1"]),
        (["when=2026-03-02T10:00:00+00:00"], ["a1"]),
        (["base="], ["c1", "b1", "a1"]),
        (["base!=null"], []),
        (["stage1.compile=True"], []),
        (["stage1.compile!=True"], ["c1", "b1", "a1"]),
        (["duration=0:10:00"], ["c1", "b1", "a1"]),
        (["duration<0:09:59"], []),
        (["duration=long"], []),
        (["stage1.compile=false", "duration>=600"], ["c1", "b1", "a1"]),
    ],
)
def test_runs_are_chosen_by_fields_metrics_and_parameters(
    runs: Runs, conditions: list[str], expected: list[str]
) -> None:
    runs.add("a1", accuracy=0.9)
    changed = _stage1()
    changed["optimizer"]["lr"] = 0.5
    runs.add("b1", accuracy=0.8, task={"parameters": {"stage1": changed}})
    runs.add("c1", outcome="failed")
    words = [word for condition in conditions for word in ("--filter", condition)]
    assert [run["id"] for run in json.loads(runs.printed("list", "--json", *words))] == expected


# In Samoa it is still the evening before.
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("when=2026-03-01", ["a1"]),
        ("when=2026-03-01 23:00", ["a1"]),
        ("when=2026-03-02T10:00:00+00:00", ["a1"]),
        ("when>=2026-03-02", ["b1"]),
    ],
)
def test_a_filter_takes_times_as_the_list_shows_them(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, condition: str, expected: list[str]
) -> None:
    runs.add("a1")
    runs.add("b1")
    monkeypatch.setenv("TZ", "Pacific/Pago_Pago")
    time.tzset()
    try:
        assert "2026-03-01 23:00" in runs.printed("list")
        found = json.loads(runs.printed("list", "--json", "--filter", condition))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [run["id"] for run in found] == expected


def test_a_filter_that_compares_with_nothing_comparable_is_refused(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    assert "a number, got 'high'" in runs.refusal("list", "--filter", "classifier.accuracy>high")
    assert "a number, got '5:00'" in runs.refusal("list", "--filter", "duration>5:00")
    assert "a time, got 'yesterday'" in runs.refusal("list", "--filter", "when>=yesterday")


def test_runs_are_sorted_by_the_best_metric_and_those_without_come_last(runs: Runs) -> None:
    for run_id, accuracy in (("a1", 0.8), ("b1", 0.9), ("c1", None), ("d1", 0.7)):
        runs.add(run_id, accuracy=accuracy)

    def order(*words: str) -> list[str]:
        return [run["id"] for run in json.loads(runs.printed("list", "--json", *words))]

    assert order("--sort", "classifier.accuracy") == ["b1", "a1", "d1", "c1"]
    assert order("--sort", "classifier.accuracy", "--reverse") == ["d1", "a1", "b1", "c1"]
    assert order("--sort", "id") == ["a1", "b1", "c1", "d1"]
    assert order("--reverse") == ["a1", "b1", "c1", "d1"]


def test_an_unknown_field_is_one_line_with_the_nearest(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    assert "did you mean 'classifier.accuracy'?" in runs.refusal("list", "--sort", "classifier.acuracy")
    assert "did you mean 'outcome'?" in runs.refusal("list", "--filter", "outcom=failed")
    assert "got 'failed'; for example --filter outcome=completed" in runs.refusal(
        "list", "--filter", "failed"
    )


def test_a_run_in_the_old_format_is_listed_and_an_unreadable_one_is_named(runs: Runs) -> None:
    old = {
        "experiment": "tiny",
        "started": START.isoformat(),
        "commit": None,
        "parameters": {"seed": 0, "stage1": _stage1()},
        "run_id": "2025",
        "base": None,
        "base_artifacts": {},
    }
    runs.write("08_reporting", "run_record.json", "2025", old)
    runs.add("a1")
    runs.write("08_reporting", "run_record.json", "cut", '{"run_id": "cu')
    result = runs.type("list", "--json")
    assert result.exit_code == 0
    described = {run["id"]: run for run in json.loads(result.stdout)}
    assert described.keys() == {"a1", "2025"}
    assert (described["2025"]["outcome"], described["2025"]["duration"]) == ("unknown", None)
    assert "2025" in runs.printed("show", "2025")
    runs.write("08_reporting", "metrics.json", "2025", _metrics(0.9))
    assert runs.printed("reproduce", "2025").startswith("kedro run --env tiny --pipelines evaluation\n")


def test_the_beginning_of_an_id_is_enough_unless_several_runs_have_it(runs: Runs) -> None:
    for run_id in ("2026-01-01", "2026-01-02", "2026-01-02b"):
        runs.add(run_id)
    assert "2026-01-01" in runs.printed("show", "2026-01-01"[:10])
    assert "2026-01-02b" in runs.printed("show", "2026-01-02b")
    # The whole id of one is the beginning of another.
    assert "2026-01-02 " in runs.printed("show", "2026-01-02")
    assert "got '2026-01', with which 3 begin: 2026-01-02b, 2026-01-02, 2026-01-01" in runs.refusal(
        "show", "2026-01"
    )
    assert "did you mean '2026-01-01'?" in runs.refusal("show", "2025-01-01")
    runs.add("2026-01-01", env="other")
    assert "add --env" in runs.refusal("show", "2026-01-01")
    assert "other" in runs.printed("show", "2026-01-01", "--env", "other")


def test_a_run_is_shown_with_its_command_changed_parameters_metrics_and_artifacts(runs: Runs) -> None:
    changed = _stage1()
    changed["optimizer"]["lr"] = 0.5
    runs.add("a1", accuracy=0.9, task={"parameters": {"stage1": changed}, "command": "kedro run --env tiny"})
    shown = runs.printed("show", "a1")
    assert "kedro run --env tiny  (completed)" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["stage1.optimizer.lr", "0.5", "0.1"] in lines
    assert not any(line and line[0] == "stage1.loss.temperature" for line in lines)
    assert ["classifier", "accuracy", "0.9000", "0.8900-0.9100", "0.5000"] in lines
    assert ["metrics", "a1", "data/08_reporting/tiny/metrics.json/a1/metrics.json"] in lines


def test_a_difference_is_marked_where_the_intervals_do_not_overlap(runs: Runs) -> None:
    changed = _stage1()
    changed["loss"]["temperature"] = 0.5
    runs.add("a1", accuracy=0.90)
    runs.add("b1", accuracy=0.91, task={"parameters": {"stage1": changed}})
    runs.add("c1", accuracy=0.95)
    compared = runs.printed("compare", "a1", "b1", "c1")
    lines = [line.split() for line in compared.splitlines()]
    temperature = str(_stage1()["loss"]["temperature"])
    assert ["stage1.loss.temperature", temperature, "0.5", temperature] in lines
    assert ["classifier", "accuracy", "0.9000", "0.9100", "0.9500", "+0.0100", "+0.0500", "*"] in lines
    assert not any(line and line[0] == "stage1.optimizer.lr" for line in lines)
    assert "two or more, got a1 alone" in runs.refusal("compare", "a1")


def test_runs_scored_on_the_same_images_are_compared_image_by_image(runs: Runs) -> None:
    # Every second image is hard for both. Of forty, six are right in one of them alone, as are two of ten.
    is_right = np.arange(40) % 2 == 0
    scores = {"a1": is_right.copy(), "b1": is_right.copy(), "c1": is_right.copy()}
    scores["b1"][1:13:2] = True
    for run_id, right in scores.items():
        runs.add(run_id, accuracy=float(right.mean()))
        table = pd.DataFrame({"row": np.arange(40), "precision_at_1": right.astype(float)})
        predictions = pd.DataFrame(
            {"id": np.arange(40).astype(str), "label": 1, "predicted": right.astype(int)}
        )
        if run_id == "c1":
            table["row"] += 1
            predictions["id"] = "other"
        for name, content in (("query_scores", table), ("predictions", predictions)):
            path = runs.write("07_model_output", f"{name}.parquet", run_id, "")
            content.to_parquet(path)
    compared = runs.printed("compare", "a1", "b1", "c1")
    (line,) = (line for line in compared.splitlines() if line.startswith("classifier accuracy"))
    gains = scores["b1"].astype(int) - scores["a1"]
    low, high = mean_intervals({"accuracy": gains}, 1000, 0)["accuracy"]
    assert low > 0
    # The intervals of both are wider, and overlap; of other images there is no difference by image.
    assert f"+0.1500 ({low:+.4f} to {high:+.4f}) *" in line
    assert line.rstrip().endswith("+0.0000")


def test_runs_of_unseen_classes_are_compared_over_the_classes(runs: Runs) -> None:
    labels, rng = np.arange(40) // 4, np.random.default_rng(0)
    runs.write("02_intermediate", "samples.parquet", "a1", "")
    path = runs.project / "data/02_intermediate/tiny/samples.parquet/a1/samples.parquet"
    pd.DataFrame({"label": labels}).to_parquet(path)
    columns = {}
    for run_id in ("a1", "b1"):
        columns[run_id] = rng.integers(0, 2, 20).astype(float)
        runs.add(run_id, accuracy=0.5)
        path = runs.write(
            "08_reporting",
            "metrics.json",
            run_id,
            {
                "data_hash": "d",
                "embedding": {"recall_at_1": float(columns[run_id].mean())},
            },
        )
        table = pd.DataFrame({"row": np.arange(20, 40), "recall_at_1": columns[run_id]})
        table.to_parquet(runs.write("07_model_output", "query_scores.parquet", run_id, ""))
    gains = columns["b1"] - columns["a1"]
    low, high = class_intervals({"x": gains}, labels[20:], 1000, 0)["x"]
    compared = runs.printed("compare", "a1", "b1")
    assert f"{gains.mean():+.4f} ({low:+.4f} to {high:+.4f})" in compared


def test_reproduce_gives_the_command_with_what_was_given_and_read(runs: Runs) -> None:
    changed = _stage1()
    changed["optimizer"]["lr"] = 0.5
    task = {
        "selection": {"pipeline_names": ["stage2"], "tags": ["training"]},
        "given": {"stage2": {"optimizer": {"lr": 0.3}}},
        "parameters": {"stage1": changed},
        "nodes": {
            "stage2.train_linear_classifier": _node("completed", "stage2_checkpoints", "stage2_history")
        },
    }
    runs.add("a1")
    runs.add("b1", base="a1", base_artifacts={"encoder": "a1", "metrics": "a1"}, task=task)
    command, _, *differing = runs.printed("reproduce", "b1").splitlines()
    assert command == (
        "kedro run --env tiny --pipelines stage2 --tags training "
        "--params stage2.optimizer.lr=0.3,stage1.optimizer.lr=0.5 --load-versions encoder:a1"
    )
    assert differing[0] == "# Differs today:"
    text = "\n".join(differing)
    assert "commit: was c0ffee, is not under version control" in text
    assert "parameters: stage1.optimizer.lr was 0.5" in text
    assert "package: torch was 0.0.1, is " in text
    assert "artifacts of a1: encoder, metrics are no longer there" in text


def test_a_preset_of_the_files_is_no_difference_from_the_transforms_that_it_stands_for(runs: Runs) -> None:
    file = runs.project / "conf/base/parameters.yml"
    for name in ("crop_and_flip", "no_such_preset"):
        file.write_text(yaml.safe_dump({"stage1": {**_stage1(), "transforms": name}}))
        parameters = {"stage1": {**_stage1(), "transforms": PRESETS["crop_and_flip"]}}
        runs.add(name, task={"parameters": parameters})
        assert ("stage1.transforms" in runs.printed("show", name)) == (name == "no_such_preset")


def test_a_run_that_was_stopped_before_its_first_session_is_not_reproduced(runs: Runs) -> None:
    runs.add("a1")
    (runs.project / "data/08_reporting/tiny/run_record.json/a1/run_record.t1.json").unlink()
    assert json.loads(runs.printed("list", "--json"))[0]["outcome"] == "interrupted"
    assert "got a1, which was stopped before" in runs.refusal("reproduce", "a1")


def test_what_a_run_has_made_itself_is_not_missed_where_an_earlier_run_is_gone(runs: Runs) -> None:
    runs.add("b1", accuracy=0.9, base="a1", base_artifacts={"encoder": "a1", "metrics": "a1"})
    differing = runs.printed("reproduce", "b1")
    assert "artifacts of a1: encoder are no longer there" in differing


def test_outside_of_a_project_commands_are_those_of_the_package(runs: Runs) -> None:
    assert runs.printed("list") == "No runs yet; type: kedro run\n"
    (runs.project / "pyproject.toml").unlink()
    assert runs.printed("list") == "No runs yet; type: supcon_pipeline run\n"
    runs.add("a1")
    assert runs.printed("reproduce", "a1").splitlines()[0] == "supcon_pipeline run --env tiny"


def test_a_continued_run_is_reproduced_by_one_command(runs: Runs) -> None:
    runs.add("a1", outcome="interrupted")
    record = runs.project / "data/08_reporting/tiny/run_record.json/a1"
    first = json.loads((record / "run_record.t1.json").read_text())
    second = {**first, "task": "t2", "selection": {"only_missing_outputs": True}, "outcome": "completed"}
    (record / "run_record.t2.json").write_text(json.dumps(second))
    assert runs.printed("reproduce", "a1").splitlines()[0] == "kedro run --env tiny"
    other = {**second, "task": "t3", "selection": {"pipeline_names": ["export"]}}
    (record / "run_record.t3.json").write_text(json.dumps(other))
    assert runs.printed("reproduce", "a1").splitlines()[:2] == [
        "SUPCON_RUN_ID=a1-again kedro run --env tiny",
        "SUPCON_RUN_ID=a1-again kedro run --env tiny --pipelines export",
    ]


def test_a_run_is_reproduced_by_one_command_in_whichever_order_kedro_has_its_pipelines(runs: Runs) -> None:
    names = ["stage2", "evaluation", "stage1"]
    runs.add("a1", outcome="interrupted", task={"selection": {"pipeline_names": names}})
    record = runs.project / "data/08_reporting/tiny/run_record.json/a1"
    first = json.loads((record / "run_record.t1.json").read_text())
    second = {**first, "task": "t2", "selection": {"pipeline_names": names[::-1]}, "outcome": "completed"}
    (record / "run_record.t2.json").write_text(json.dumps(second))
    command, empty, *_ = runs.printed("reproduce", "a1").splitlines()
    assert (command, empty) == ("kedro run --env tiny --pipelines evaluation,stage1,stage2", "")


def test_a_run_is_deleted_with_all_it_made_once_that_is_confirmed(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    runs.add("b1", accuracy=0.8)
    events = runs.project / "data/08_reporting/tiny/tensorboard/stage1/a1/events"
    events.parent.mkdir(parents=True)
    events.write_text("curves")
    assert runs.type("delete", "a1", input="n\n").exit_code == 1
    assert events.exists()
    runs.printed("delete", "a1", input="y\n")
    assert not list(runs.project.glob("data/**/a1"))
    assert len(list(runs.project.glob("data/**/b1"))) == 2


def test_a_run_that_others_read_is_deleted_only_by_force(runs: Runs) -> None:
    runs.add("a1")
    runs.write("06_models", "encoder.safetensors", "a1", "weights")
    runs.add("b1", base="a1", base_artifacts={"encoder": "a1"})
    assert "got a1, from which b1 read; delete what is based on it first, or add --force" in runs.refusal(
        "delete", "a1", "--yes"
    )
    assert list(runs.project.glob("data/**/encoder.safetensors/a1"))
    runs.printed("delete", "a1", "--yes", "--force")
    assert not list(runs.project.glob("data/**/a1"))


def test_a_run_whose_record_cannot_be_read_is_deleted_by_its_id(runs: Runs) -> None:
    record = runs.write("08_reporting", "run_record.json", "cut", '{"run_id": "cu')
    encoder = runs.write("06_models", "encoder.safetensors", "cut", "weights")
    runs.add("a1", base="cut", base_artifacts={"encoder": "cut"})
    assert "kedro runs delete cut" in runs.type("list").output
    assert "got cut, from which a1 read" in runs.type("delete", "cut", "--yes").output
    assert "Deleted run cut" in runs.printed("delete", "cut", "--yes", "--force")
    assert not record.exists()
    assert not encoder.exists()


def test_a_run_that_one_without_a_readable_record_may_read_is_deleted_only_by_force(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    for run_id in ("cut", "torn"):
        runs.write("08_reporting", "run_record.json", run_id, '{"run_id": "cu')
    result = runs.type("delete", "a1", "--yes")
    assert result.exit_code == 1
    assert (
        "got a1, while the record of cut, torn cannot be read; restore or delete that first, or add --force"
    ) in result.output.splitlines()[-1]
    assert list(runs.project.glob("data/**/metrics.json/a1"))
    runs.printed("delete", "cut", "--yes", "--force")
    runs.printed("delete", "torn", "--yes")
    runs.printed("delete", "a1", "--yes")
    assert not list(runs.project.glob("data/**/a1"))


def test_a_running_run_is_neither_deleted_nor_pruned_around(runs: Runs) -> None:
    runs.add("a1", outcome="running", task={"host": os.uname().nodename, "pid": os.getpid()})
    progress = _add_progress(runs)
    assert "run must have ended, got a1, which is running" in runs.refusal("delete", "a1", "--yes")
    assert "run a1 is running" in runs.printed("prune", "--yes")
    assert progress.exists()


def _add_progress(runs: Runs) -> Path:
    folder = runs.project / "data/06_models/tiny/stage1_progress/0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text("{}")
    (folder / "state.pt").write_bytes(bytes(1000))
    return folder


def test_prune_says_what_it_would_remove_and_removes_it_when_told(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    progress = _add_progress(runs)
    temporary = runs.write("06_models", "encoder.safetensors", "a1", "weights").with_name(
        f".encoder.safetensors.{'0' * 32}.tmp"
    )
    temporary.write_bytes(b"half")
    orphan = runs.write("06_models", "classifier.safetensors", "gone", "weights")
    broken = runs.project / "data/06_models/tiny/packing/0.npy.broken"
    broken.parent.mkdir()
    broken.write_bytes(b"cut")
    removed = (progress, temporary, orphan, broken)
    said = runs.printed("prune")
    assert all(path.exists() for path in removed)
    for words in ("progress of a training that was given up", "half-written", "set aside", "is no run"):
        assert words in said
    runs.printed("prune", "--yes")
    assert not any(path.exists() for path in removed)
    assert (temporary.parent / "encoder.safetensors").exists()
    assert runs.printed("prune") == "There is nothing to remove\n"


@pytest.mark.parametrize("damaged", ["run_record.json", "run_record.t1.json"])
def test_prune_keeps_progress_from_which_a_run_may_go_on_whose_record_is_damaged(
    runs: Runs, damaged: str
) -> None:
    runs.add("a1", task={"nodes": {"data_prep.pack_images": _node("completed", "prepared_images")}})
    runs.add("b1", outcome="interrupted")
    progress = _add_progress(runs)
    (record,) = runs.project.glob(f"data/08_reporting/tiny/run_record.json/b1/{damaged}")
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    assert f"Kept {progress}" in runs.printed("prune", "--yes")
    assert progress.exists()


def test_prune_keeps_what_a_stopped_run_goes_on_from_and_what_a_kept_run_reads(runs: Runs) -> None:
    encoder = runs.write("06_models", "encoder.safetensors", "gone", "weights")
    runs.add("a1", outcome="interrupted", base="gone", base_artifacts={"encoder": "gone"})
    progress = _add_progress(runs)
    unreadable = runs.write("08_reporting", "run_record.json", "cut", '{"run_id": "cu')
    kept = runs.write("06_models", "classifier.safetensors", "cut", "weights")
    assert "run a1 was stopped and can go on from it" in runs.printed("prune", "--yes")
    assert all(path.exists() for path in (encoder, progress, unreadable, kept))
    # A newer run that has not trained at all, and one that has.
    runs.add("b1", task={"nodes": {"visualization.write_report": _node("completed", "report")}})
    runs.printed("prune", "--yes")
    assert progress.exists()
    shutil.rmtree(unreadable.parent)
    runs.add("c1")
    runs.printed("prune", "--yes")
    assert not progress.exists()


@pytest.mark.parametrize(
    "versions", ["encoder:", "encoder", ":2026", "encoder: ", "encoder:a/b", "encoder:.."]
)
def test_a_load_version_without_a_run_is_one_line(versions: str) -> None:
    result = CliRunner().invoke(run, ["--load-versions", versions])
    assert result.exit_code == 1
    assert f"got '{versions.strip()}'" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("folder", ["@photos", "%photos", "!photos", "*photos", "`photos"])
def test_a_value_that_is_no_yaml_is_one_line_with_a_remedy_that_works(folder: str) -> None:
    def read(params: str) -> Any:
        return run.make_context("run", ["--params", params]).params["params"]

    with pytest.raises(CommandError, match="must have values as in YAML") as refused:
        read(f"seed=1,images.path={folder}")
    option, params = shlex.split(str(refused.value).partition("as text it is: ")[2])
    assert option == "--params"
    assert read(params) == {"images": {"path": folder}}


def test_a_refusal_of_kedro_itself_is_shown() -> None:
    result = CliRunner().invoke(run, ["--pipeline", "a", "--pipelines", "b"])
    assert result.output == "Error: Options '--pipeline' and '--pipelines' cannot be used together\n"


def test_the_list_loads_no_heavy_library(runs: Runs) -> None:
    runs.add("a1", accuracy=0.9)
    code = (
        "import sys; from click.testing import CliRunner; from supcon_pipeline.cli import cli; "
        "print('a1' in CliRunner().invoke(cli, ['runs', 'list']).output); "
        "print([name for name in ('torch', 'matplotlib', 'sklearn', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.project, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["True", "[]"]
