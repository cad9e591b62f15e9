"""The id of a run: taken from outside where it is given, so that the tasks of an orchestrator share it."""

import hashlib
import os
import re

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError

# Set by plugins of Kedro for Kubeflow and the like, and by Airflow for each of its tasks.
_ORCHESTRATORS = ("KEDRO_CONFIG_RUN_ID", "AIRFLOW_CTX_DAG_RUN_ID")
_MAX_LENGTH = 120
_VALID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_MAX_LENGTH - 1}}}")


def given_run_id() -> str | None:
    """The id that was given from outside, as a name of folders; none where there is none.

    `SUPCON_RUN_ID` is taken as it stands. Ids of orchestrators hold characters that no folder should have;
    these are replaced, and a hash of the whole keeps different ids apart.

    Raises:
        CommandError: where `SUPCON_RUN_ID` is no name of a folder.
    """
    chosen = os.environ.get(RUN_ID_VARIABLE)
    if chosen:
        require_run_id(RUN_ID_VARIABLE, chosen)
        return chosen
    raw = _of_orchestrator()
    # Different DAGs have runs of the same id where they have the same schedule.
    return as_run_id(raw, scope=os.environ.get("AIRFLOW_CTX_DAG_ID", "")) if raw else None


def _of_orchestrator() -> str | None:
    return next(filter(None, map(os.environ.get, _ORCHESTRATORS)), None)


def way_to_another_run() -> str:
    """What to do where the id must not be the one that was given.

    Set where an orchestrator runs, the variable would make all of its runs one.
    """
    if not os.environ.get(RUN_ID_VARIABLE) and _of_orchestrator():
        return "start a new run of the orchestrator"
    return f"choose another {RUN_ID_VARIABLE}"


def choose_run_id(session_id: str) -> str:
    """The id given from outside, or else that of the session.

    Raises:
        CommandError: where it is no name of a folder.
    """
    run_id = given_run_id() or session_id
    require_run_id("run_id", run_id)
    return run_id


def require_run_id(name: str, run_id: str) -> None:
    """Refuse what should not be the name of a folder.

    Raises:
        CommandError: naming where the id comes from.
    """
    if not _VALID.fullmatch(run_id):
        raise CommandError(
            f"{name} must start with a letter or digit and hold only letters, digits, "
            f"'.', '_' and '-', at most {_MAX_LENGTH}, got {run_id!r}; choose another"
        )


def as_run_id(raw: str, scope: str = "") -> str:
    """An id as the name of a folder; different ids give different names.

    Args:
        raw: any text.
        scope: within which the id means one run.

    Example:
        >>> as_run_id("manual__2026-01-01T00:00:00+00:00")
        'manual__2026-01-01T00-00-00-00-00-c8a9a2b1'
    """
    if _VALID.fullmatch(raw):
        return raw
    digest = hashlib.sha256(f"{scope}\n{raw}".encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", raw)[: _MAX_LENGTH - 20].strip("-._")
    return f"{readable or 'run'}-{digest}"


def is_generated(run_id: str) -> bool:
    """Whether an id looks like those that Kedro makes of the time, so that nobody chose it."""
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d\.\d{3}Z", run_id) is not None
