"""The session: one id for everything a run saves, and one line for input that is refused."""

import os
import re
from typing import Any

from kedro.framework.session import KedroSession
from kedro.io import DatasetError

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError, complete_commands
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.validation import require_names


class RunSession(KedroSession):
    """A Kedro session whose id, the save version of every artifact, is `SUPCON_RUN_ID` where that is set."""

    def __init__(self, session_id: str, **arguments: Any):
        run_id = os.environ.get(RUN_ID_VARIABLE) or session_id
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run_id):
            raise CommandError(
                f"{RUN_ID_VARIABLE} must start with a letter or digit and hold only letters, digits, "
                f"'.', '_' and '-', got {run_id!r}; choose another"
            )
        super().__init__(session_id=run_id, **arguments)

    def run(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Run as Kedro does, but show refused input as one line; any other error keeps its traceback.

        Raises:
            CommandError: with the line of the refusal.
        """
        require_names(named)
        try:
            return super().run(*arguments, **named)
        except (InputError, DatasetError) as error:
            refusal = _find_refusal(error)
            if refusal is None or isinstance(refusal, CommandError):
                raise
            raise CommandError(complete_commands(str(refusal), self.store.get("env"))) from error


def _find_refusal(error: BaseException | None) -> InputError | None:
    """The refusal behind an error, which Kedro wraps in `DatasetError` where a dataset raised it."""
    while isinstance(error, DatasetError) and not isinstance(error, InputError):
        error = error.__cause__
    return error if isinstance(error, InputError) else None
