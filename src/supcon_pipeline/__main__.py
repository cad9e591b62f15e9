"""The program `supcon_pipeline`; `python -m supcon_pipeline` does what its command `run` does."""

import sys
from typing import Any

from supcon_pipeline.packaged import choose_log


def program() -> None:
    """Run a command: `run`, `runs`, `init` and others."""
    choose_log()
    # Kedro sets up its log when it is imported.
    from supcon_pipeline.console import program as group

    group(prog_name="supcon_pipeline")


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the pipelines, with the options of `kedro run`, as Kedro's own packages do."""
    choose_log()
    from kedro.framework.cli.utils import find_run_command
    from kedro.framework.project import configure_project

    from supcon_pipeline.projects import PACKAGE

    configure_project(PACKAGE)
    kwargs["standalone_mode"] = not hasattr(sys, "ps1")
    return find_run_command(PACKAGE)(*args, **kwargs)


if __name__ == "__main__":
    main()
