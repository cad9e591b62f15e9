"""A run of a sweep: it is stopped, with what it has saved, as soon as the sweep ends."""

import os
import signal
import sys
from pathlib import Path
from threading import Thread

from supcon_pipeline.packaged import choose_log


def main() -> None:
    """Do what `run` with these arguments does here; stop when the process that started this one is gone."""
    choose_log()
    # Kedro sets up its log when it is imported.
    from kedro.framework.cli.utils import find_run_command

    from supcon_pipeline.commands import program_of
    from supcon_pipeline.projects import PACKAGE, find_folder, prepare_folder

    watch()
    folder = find_folder(Path.cwd())
    prepare_folder(folder)
    # What the record of the run says was typed.
    sys.argv[0] = program_of(folder)
    find_run_command(PACKAGE)(sys.argv[2:])


def watch() -> None:
    """Stop this process, as `kill` does, when the one at the other end of its input is gone."""
    Thread(target=_stop_with_parent, name="stop with parent", daemon=True).start()


def _stop_with_parent() -> None:
    # The other end of this pipe is closed however its process ends.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
