"""A run that is killed while it trains."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT

LONGER = {"stage1": {"schedule": {"num_epochs": 4}}}


def kill_while_training(project: Path) -> None:
    """Train stage 1 as with `LONGER`, and kill the command once the training has saved its progress."""
    arguments = ["run", "--env", "tiny", "--pipelines", "stage1", "--params", "stage1.schedule.num_epochs=4"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-m", "kedro", *arguments], cwd=project, env=variables, stdout=subprocess.DEVNULL
    )
    while not list(project.glob("data/06_models/tiny/stage1_progress/*/state.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
