import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, make_project, read_catalog, run_session

LONGER = {"stage1": {"schedule": {"num_epochs": 4}}}


def test_a_killed_run_that_is_started_again_goes_on_and_ends_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project(tmp_path / "project")
    run_session(project, pipeline_names=["data_prep"])
    arguments = ["run", "--env", "tiny", "--pipelines", "stage1", "--params", "stage1.schedule.num_epochs=4"]
    command = [sys.executable, "-m", "kedro", *arguments]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(command, cwd=project, env=variables, stdout=subprocess.DEVNULL)
    progress = project / "data/06_models/tiny/stage1_progress"
    while not list(progress.glob("*/state.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
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
