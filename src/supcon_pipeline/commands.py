"""Commands: how one refuses, and what a message suggests to type."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from supcon_pipeline.core.messages import InputError


class CommandError(click.ClickException, InputError):
    """Input that a command refuses; shown as its lines alone, without a traceback."""


def run_command(
    pipelines: Iterable[str],
    env: str | None = None,
    params: Mapping[str, Any] | None = None,
    load_versions: Mapping[str, str] | None = None,
    is_going_on: bool = False,
    run_id: str | None = None,
    run_id_variable: str = "SUPCON_RUN_ID",
) -> str:
    """The `kedro run` of some pipelines, as a shell takes it.

    Args:
        pipelines: their names.
        env: the experiment, where it is not the default one.
        params: runtime parameters, nested.
        load_versions: versions by name of artifact.
        is_going_on: whether what has been made is kept.
        run_id: of the run to go on with.
        run_id_variable: the environment variable that names it.
    """
    words = ["kedro", "run", *(["--env", env] if env else []), "--pipelines", ",".join(pipelines)]
    given = ",".join(f"{name}={_as_text(value)}" for name, value in _leaves(params or {}))
    words += ["--params", given] if given else []
    versions = ",".join(f"{name}:{version}" for name, version in (load_versions or {}).items())
    words += ["--load-versions", versions] if versions else []
    words += ["--only-missing-outputs"] if is_going_on else []
    return (f"{run_id_variable}={shlex.quote(run_id)} " if run_id else "") + shlex.join(words)


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
