"""A small sweep, whose trials are real runs in processes of their own."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

from supcon_pipeline.cli import cli
from supcon_pipeline.run_commands.sweep import runs
from tests.conftest import ROOT, bootstrap, made_in, run_session

METRIC = "embedding.mean_average_precision_at_r"
RATES = (0.001, 0.1)


def history(project: Path, run_id: str) -> pd.DataFrame:
    return pd.read_csv(project / f"data/06_models/tiny/stage1_history.csv/{run_id}/stage1_history.csv")


def by_hand(project: Path, lr: float) -> pd.DataFrame:
    """The history of the trial with a learning rate, run without a sweep."""
    given = {"stage1": {"optimizer": {"lr": lr}}}
    nodes = ["stage1.pretrain_encoder"]
    return history(project, run_session(project, node_names=nodes, runtime_params=given))


def type_sweep(project: Path, *options: str) -> Result:
    words = ["runs", "sweep", str(project / "lr.yml"), "--env", "tiny", *options]
    return CliRunner().invoke(cli, words, obj=bootstrap(project))


def test_a_sweep_finds_the_optimum_of_the_runs_that_are_made_by_hand(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    declared = {
        "metric": f"stage1.{METRIC}",
        "sampler": "grid",
        "search": {"stage1.optimizer.lr": list(RATES)},
        "pipelines": ["stage1"],
        "final_seeds": 1,
    }
    (project / "lr.yml").write_text(yaml.safe_dump(declared))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    metrics = json.loads(
        (project / "data/08_reporting/tiny/metrics.json/2026-01-01/metrics.json").read_text()
    )
    evaluated: list[str] = []

    def evaluate(_: Any, run: Any) -> tuple[float, dict[str, Any]]:
        """Evaluation takes longer than both trials, and nothing of it is of the sweep."""
        evaluated.append(run.command)
        return 0.5, metrics

    monkeypatch.setattr(runs.SweepRuns, "evaluate", evaluate)
    before = sorted(project.rglob("*"))
    dry = type_sweep(project, "--dry-run")
    assert "kedro run --env tiny --pipelines stage1 --params stage1.optimizer.lr=0.001,seed=0" in dry.output
    assert sorted(project.rglob("*")) == before

    done = type_sweep(project)
    assert done.exit_code == 0, done.output
    trials = [history(project, f"lr-t{number:03d}-s0") for number in range(2)]
    for trial, lr in zip(trials, RATES, strict=True):
        pd.testing.assert_frame_equal(trial, by_hand(project, lr))
    values = [trial[METRIC].max() for trial in trials]
    best = values.index(max(values))
    assert f"Best is lr-t{best:03d} with stage1.{METRIC} {max(values):.4f}" in done.output
    assert (
        f"To train with them: kedro run --env tiny --params stage1.optimizer.lr={RATES[best]}" in done.output
    )
    made = made_in(project, "lr-t000-s0")
    assert made >= {"run_record", "stage1_checkpoints", "stage1_history"}
    assert not made & {"dataset_card", "encoder", "embeddings", "metrics"}
    (final,) = evaluated
    assert f"SUPCON_RUN_ID=lr-t{best:03d}-test-s1 kedro run --env tiny --pipelines " in final
    compared = CliRunner().invoke(
        cli, ["runs", "compare", "lr-t000", "lr-t001", "--env", "tiny"], obj=bootstrap(project)
    )
    assert ["stage1.optimizer.lr", "0.001", "0.1"] in map(str.split, compared.output.splitlines())

    monkeypatch.setattr(runs, "command_of", lambda run: pytest.fail(f"{run.run_id} ran again"))
    again = type_sweep(project)
    assert (
        "lr: 2 of 2 trials are done; what the runs print is in data/06_models/tiny/sweeps/lr\n"
        in again.output
    )
    assert again.output.partition("Best is")[2] == done.output.partition("Best is")[2]
