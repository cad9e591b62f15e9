"""One of two hosts on the loopback address, which train together.

Usage: on_hosts.py FOLDER PORT NUMBER RANK_THAT_IS_KILLED|fail|wait
"""

import json
import sys
from functools import partial
from pathlib import Path

from tests.core.training import launched
from tests.core.training.trainings import make_data
from tests.core.training.waiting import wait
from torch.distributed.launcher import api as launcher_api

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.training.hosts import Hosts, meeting_others
from supcon_pipeline.core.training.launching import follow, launch
from supcon_pipeline.core.training.progress import ProgressStore
from supcon_pipeline.core.training.resumable import run_stage
from supcon_pipeline.core.training.tensorboard import TrainingLog


def main(folder: Path, port: int, number: int, what: str) -> None:
    """Lead or follow."""
    hosts = Hosts(2, number, "127.0.0.1", port)
    if number:
        follow(hosts)
        return
    with meeting_others(hosts):
        if what == "fail":
            launch(launched.fail, 1, "stage1.processes", 0, folder)
        elif what == "wait":
            (folder / "waiting").mkdir()
            launch(wait, 1, "stage1.processes", 0, folder, folder / "waiting")
        else:
            stage = launched.make_killing_stage(int(what), 5, folder / "mark")
            store = ProgressStore(folder / "progress")
            with TrainingLog(str(folder / "log")) as log:
                _, history = run_stage(stage, make_data(), log, store, "run")
            (folder / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    # Forked, as importing everything anew takes longer than all else here, and this process computes nothing.
    launcher_api.LaunchConfig = partial(launcher_api.LaunchConfig, start_method="fork")  # type: ignore[misc, assignment]
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    except (InputError, ZeroDivisionError) as error:
        print(f"{type(error).__name__}: {error}")
