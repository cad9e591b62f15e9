"""`kedro run` for a run of a sweep: it is stopped, with what it has saved, as soon as the sweep ends."""

import os
import signal
import sys
from threading import Thread


def main() -> None:
    """Do what `kedro` does with these arguments, and stop when the process that started this one is gone."""
    from kedro.framework.cli import main as kedro

    watch()
    # What the record of the run says was typed.
    sys.argv[0] = "kedro"
    kedro()


def watch() -> None:
    """Stop this process, as `kill` does, when the one at the other end of its input is gone."""
    Thread(target=_stop_with_parent, name="stop with parent", daemon=True).start()


def _stop_with_parent() -> None:
    # The other end of this pipe is closed however its process ends.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
