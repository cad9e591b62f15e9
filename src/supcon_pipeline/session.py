"""The session: one id for everything a run saves, and one line for input that is refused."""

from typing import Any

from kedro.framework.session import KedroSession
from kedro.io import DatasetError

from supcon_pipeline.commands import CommandError, find_refusal
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.run_ids import choose_run_id
from supcon_pipeline.validation import require_names


class RunSession(KedroSession):
    """A Kedro session that shows refused input as one line, and has the id of the run.

    Any other session runs the same: what a run is, is decided in the hooks.
    """

    def __init__(self, session_id: str, **arguments: Any):
        super().__init__(session_id=choose_run_id(session_id), **arguments)

    def run(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Run as Kedro does, but show refused input as one line; any other error keeps its traceback.

        Raises:
            CommandError: with the line of the refusal.
        """
        require_names(named)
        try:
            return super().run(*arguments, **named)
        except (InputError, DatasetError) as error:
            refusal = find_refusal(error)
            if refusal is None or isinstance(refusal, CommandError):
                raise
            raise CommandError(str(refusal)) from error
