"""A script that launches processes that wait, until it is interrupted; it imports as little as it can.

Usage: waiting.py FOLDER
"""

import os
import signal
import sys
import time
from pathlib import Path

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.ranks import Ranks
from supcon_pipeline.core.training.launching import launch


def wait(ranks: Ranks, folder: Path) -> None:
    """Leave the process's number and wait."""
    (folder / str(os.getpid())).touch()
    ranks.agree(None)
    time.sleep(600)


if __name__ == "__main__":
    # A shell that starts tests in the background lets them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        launch(wait, 2, "stage1.processes", 0, Path(sys.argv[1]), Path(sys.argv[1]))
    except (KeyboardInterrupt, InputError) as error:
        print(type(error).__name__)
