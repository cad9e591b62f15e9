import re
from pathlib import Path

import pytest

from supcon_pipeline.core.training.monitoring import epoch_logger
from tests.conftest import make_project, read_catalog, run_session
from tests.system.kills import LONGER, kill_while_training


def test_a_killed_run_that_is_started_again_goes_on_and_ends_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    run_session(project, pipeline_names=["data_prep"])
    # conf/logging.yml gives it a handler of its own, once a test has loaded Kedro.
    monkeypatch.setattr(epoch_logger, "handlers", [caplog.handler])
    monkeypatch.setattr(epoch_logger, "propagate", False)
    kill_while_training(project)
    progress = project / "data/06_models/tiny/stage1_progress"
    assert not list(project.glob("data/06_models/tiny/stage1_checkpoints.safetensors/*/*"))

    run_session(project, pipeline_names=["stage1"], runtime_params=LONGER)
    assert "Resuming stage 1 after epoch" in caplog.text
    # Where there is no terminal, a line for each epoch in place of the bar.
    epoch = r"stage 1: epoch 4/4, loss \d+\.\d+, embedding\.\w+ \d\.\d+, [\d,]+ images/s"
    assert len([text for text in caplog.messages if re.fullmatch(epoch, text)]) == 1
    assert not list(progress.glob("*/state.pt"))

    catalog = read_catalog(project)
    history = catalog.load("stage1_history")
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    resumed = catalog.load("stage1_checkpoints")
    run_session(project, pipeline_names=["stage1"], runtime_params=LONGER)
    undisturbed = read_catalog(project).load("stage1_checkpoints")
    assert all((undisturbed.tensors[name] == tensor).all() for name, tensor in resumed.tensors.items())
