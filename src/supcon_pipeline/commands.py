"""Commands: the error one stops with, and how a message spells the command to type next."""

import json
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from kedro.io import DatasetError
from kedro.utils import is_kedro_project
from omegaconf import OmegaConf

from supcon_pipeline.core.messages import InputError

RUN_ID_VARIABLE = "SUPCON_RUN_ID"
# Parameters that hold a path.
_PATHS = (
    "images.path",
    "inference.path",
    "enrol.path",
    "out_of_distribution.path",
    "stage1.backbone.weights",
)


class CommandError(click.ClickException, InputError):
    """Input that stops a command; only the message is shown, without a traceback."""


def escape_what_the_console_lacks() -> None:
    """Let the output escape letters that its encoding does not have, as names of classes may hold.

    In a log of cp1252 or ASCII, Python would end the run instead; errors are escaped as they are.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def run_command(
    pipelines: Iterable[str],
    env: str | None = None,
    params: Mapping[str, Any] | None = None,
    load_versions: Mapping[str, str] | None = None,
    is_resumed: bool = False,
    run_id: str | None = None,
    program: str = "kedro",
    selection: Mapping[str, Iterable[str]] | None = None,
) -> str:
    """The `kedro run` command for some pipelines, quoted for a shell.

    Args:
        pipelines: names of the pipelines; none for the default one.
        env: the experiment; none for the default one.
        params: runtime parameters, nested.
        load_versions: version by artifact name.
        is_resumed: whether the run keeps the artifacts it already has.
        run_id: the existing run to continue.
        program: what is typed for Kedro, from `program_of`.
        selection: what else chooses nodes: names by option, such as `--tags`.

    Example:
        >>> run_command(["stage1", "stage1_swa"], params={"stage1": {"compile": True}})
        'kedro run --pipelines stage1,stage1_swa --params stage1.compile=true'
    """
    words = [program, "run", *(["--env", env] if env else [])]
    for option, names in {"--pipelines": pipelines, **(selection or {})}.items():
        chosen = ",".join(names)
        words += [option, chosen] if chosen else []
    assignments = _assignments(params or {})
    words += ["--params", assignments] if assignments else []
    versions = ",".join(f"{name}:{version}" for name, version in (load_versions or {}).items())
    words += ["--load-versions", versions] if versions else []
    words += ["--only-missing-outputs"] if is_resumed else []
    return (f"{RUN_ID_VARIABLE}={shlex.quote(run_id)} " if run_id else "") + shlex.join(words)


def with_typed_paths(params: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Runtime parameters with every path as it was typed.

    Kedro reads a value of `--params` as YAML, in which `photos #1` is `photos` and `2024` a number.

    Args:
        params: as Kedro has read them.
        words: of the command. A path in quotes, and `null`, are left as Kedro reads them.

    Example:
        >>> with_typed_paths({"images": {"path": "photos"}}, ["--params", "images.path=photos #1"])
        {'images': {'path': 'photos #1'}}
    """
    text = ",".join(
        [
            *(after for word, after in pairwise(words) if word == "--params"),
            *(word.removeprefix("--params=") for word in words if word.startswith("--params=")),
        ]
    )
    corrected = deepcopy(dict(params))
    for item in text.split(","):
        name, _, typed = (part.strip() for part in item.partition("="))
        is_quoted = typed[:1] in ("'", '"') and typed[-1:] == typed[:1]
        if name in _PATHS and typed not in ("", "null") and not is_quoted:
            *groups, last = name.split(".")
            reduce(lambda group, part: group.setdefault(part, {}), groups, corrected)[last] = typed
    return corrected


def complete_commands(
    message: str, env: str | None, program: str = "kedro", params: Mapping[str, Any] | None = None
) -> str:
    """A message of a node or dataset, which know no experiment, with it in every `kedro run`.

    Args:
        message: the message.
        env: the experiment; none for the default one.
        program: what is typed for Kedro, from `program_of`.
        params: runtime parameters, nested, which go into the commands, too.

    Example:
        >>> complete_commands("type: kedro run --pipelines index", "images")
        'type: kedro run --env images --pipelines index'
    """

    def complete(found: re.Match[str]) -> str:
        own = found["params"]
        named = {item.partition("=")[0] for item in own.split(",")} if own else set[str]()
        given = {name: value for name, value in leaves(params or {}) if name not in named}
        experiment = f" --env {shlex.quote(env)}" if env else ""
        assignments = ",".join(filter(None, [_assignments(given), own]))
        # As it is written, it may be in quotes already.
        typed = own if assignments == (own or "") else shlex.quote(assignments)
        return f"kedro run{experiment}{found['options']}" + (f" --params {typed}" if assignments else "")

    value = r"(?:'[^']*'|[^\s;'])+"
    command = rf"kedro run(?P<options>( --(?!params )[a-z-]+ {value})+)( --params (?P<params>{value}))?"
    return re.sub(r"(?<![\w/])kedro (?=runs?\b)", lambda _: f"{program} ", re.sub(command, complete, message))


class CommandsInLog(logging.Filter):
    """Completes the commands in a message that is logged, before a hook can.

    Args:
        complete: gives a text with its commands completed.
    """

    def __init__(self, complete: Callable[[str], str]):
        super().__init__()
        self.complete = complete

    def replace_in(self, log: logging.Logger) -> None:
        """Take the place of that of an earlier session; filters of others stay."""
        log.filters[:] = [*(own for own in log.filters if not isinstance(own, CommandsInLog)), self]

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, with completed commands."""
        if isinstance(record.args, tuple):
            record.args = tuple(self.complete(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or while they were handled; each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def find_refusal(error: BaseException | None) -> InputError | None:
    """The refusal behind an error, which Kedro wraps in `DatasetError` where a dataset raised it."""
    while isinstance(error, DatasetError) and not isinstance(error, InputError):
        error = error.__cause__
    return error if isinstance(error, InputError) else None


def program_of(folder: Path) -> str:
    """What to type in a folder: `kedro` in a project, elsewhere the program of this package.

    It has `.venv/bin/` before it where this process runs in the folder's own environment.
    """
    is_own = Path(sys.prefix).resolve() == (folder / ".venv").resolve()
    return (".venv/bin/" if is_own else "") + ("kedro" if is_kedro_project(folder) else "supcon_pipeline")


def leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested mappings, each with its dotted name."""
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def replaced(parameters: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A copy of nested parameters with another value for one, as `--params` gives it.

    Example:
        >>> replaced({"stage1": {"compile": False}}, "stage1.compile", True)
        {'stage1': {'compile': True}}
    """
    first, _, rest = name.partition(".")
    if not rest:
        return {**parameters, first: value}
    inner = parameters.get(first)
    return {**parameters, first: replaced(inner if isinstance(inner, Mapping) else {}, rest, value)}


def is_sayable(name: str, value: Any) -> bool:
    """Whether `--params` can give a parameter this value: it splits at commas, and knows no lists."""
    is_in_list = any(part.isdigit() for part in name.split("."))
    return not (is_in_list or isinstance(value, list) or (isinstance(value, str) and "," in value))


def _assignments(params: Mapping[str, Any]) -> str:
    """Parameters as `--params` takes them."""
    return ",".join(f"{name}={_as_typed(value)}" for name, value in leaves(params))


def _as_typed(value: Any) -> str:
    """The value as `--params` reads it back; text that would come back as a number has quotes."""
    if isinstance(value, str) and OmegaConf.from_dotlist([f"value={value}"])["value"] == value:
        return value
    return json.dumps(value, ensure_ascii=False)
