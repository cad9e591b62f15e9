"""A run whose training takes several processes."""

from pathlib import Path

import pytest

from tests.conftest import Kedro, read_catalog, run_session
from tests.gpu import hidden_gpus


# Two processes on one GPU are refused.
@hidden_gpus()
def test_stage_1_by_two_processes_is_that_of_one_with_micro_batches(project: Path, kedro: Kedro) -> None:
    schedule = {"num_epochs": 1, "warmup_epochs": 0}
    # 78 images to train on are three batches of 26.
    params = {"stage1": {"micro_batch_size": 13, "schedule": schedule}}
    run_session(project, pipeline_names=["stage1"], runtime_params=params)
    one = read_catalog(project).load("stage1_history")
    words = "stage1.processes=2,stage1.schedule.num_epochs=1,stage1.schedule.warmup_epochs=0"
    done = kedro(project, "run", "--env", "tiny", "--pipelines", "stage1", "--params", words)
    assert done.returncode == 0, done.stdout + done.stderr
    # Said once, by the first process, in the words of one that is alone.
    assert done.stdout.count("stage 1: epoch 1/1") == 1
    two = read_catalog(project).load("stage1_history")
    assert list(two.columns) == list(one.columns)
    for name in one.columns:
        assert two[name].tolist() == pytest.approx(one[name].tolist(), rel=1e-4), name
    # Nothing is left to go on from.
    assert not list(project.glob("data/**/stage1_progress/*/state.pt"))
