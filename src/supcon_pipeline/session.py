"""The session: one id for everything a run saves, and one line for input that is refused."""

import sys
from pathlib import Path
from typing import Any

from kedro.framework.session import KedroSession

from supcon_pipeline.accidents import raise_in_one_line
from supcon_pipeline.commands import with_typed_paths
from supcon_pipeline.core.training.hosts import Hosts, meeting_others
from supcon_pipeline.interrupts import unwinding_on_signals
from supcon_pipeline.projects import find_folder
from supcon_pipeline.run_ids import choose_run_id
from supcon_pipeline.validation import require_names


class RunSession(KedroSession):
    """A Kedro session that shows refused input as one line, and has the id of the run.

    Any other session runs the same: what a run is, is decided in the hooks.
    """

    def __init__(self, session_id: str, project_path: Path | str | None = None, **arguments: Any):
        folder = project_path or find_folder(Path.cwd())
        super().__init__(session_id=choose_run_id(session_id), project_path=folder, **arguments)

    @classmethod
    def create(cls, *arguments: Any, **named: Any) -> KedroSession:
        """Create a session as Kedro does, with paths on the command line as they were typed."""
        if named.get("runtime_params"):
            named["runtime_params"] = with_typed_paths(named["runtime_params"], sys.argv)
        return super().create(*arguments, **named)

    def run(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Run as Kedro does, but show refused input and accidents as one line; a bug keeps its traceback.

        Of several hosts, only the first runs pipelines; the others take part in its trainings.

        Raises:
            CommandError: with the line.
        """
        require_names(named)
        try:
            with unwinding_on_signals():
                if (hosts := Hosts.of()).number:
                    return _follow(hosts)
                with meeting_others(hosts):
                    return super().run(*arguments, **named)
        except Exception as error:
            raise_in_one_line(error)
            raise


def _follow(hosts: Hosts) -> dict[str, Any]:
    """Take part in what the first host trains; nothing comes of it here."""
    from supcon_pipeline.core.training.launching import follow

    follow(hosts)
    return {}
