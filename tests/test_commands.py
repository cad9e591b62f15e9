import io
import logging
import sys
from pathlib import Path

import pytest
from kedro.logging import RichHandler
from rich.console import Console

from supcon_pipeline.commands import (
    CommandsInLog,
    causes,
    complete_commands,
    escape_what_the_console_lacks,
    program_of,
)

CAT, BEETLE = "\N{CJK UNIFIED IDEOGRAPH-732B}", "K\N{LATIN SMALL LETTER A WITH DIAERESIS}fer"


@pytest.mark.parametrize(("encoding", "beetle"), [("ascii", r"K\xe4fer"), ("cp1252", BEETLE)])
def test_letters_that_the_console_lacks_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str, beetle: str
) -> None:
    content = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(content, encoding=encoding, write_through=True))
    escape_what_the_console_lacks()
    names = f"{CAT} and {BEETLE}"
    print(names)
    Console(file=sys.stdout, width=80).print(names)
    handler = RichHandler(console=Console(file=sys.stdout, width=80))
    handler.emit(logging.makeLogRecord({"msg": names, "levelno": logging.WARNING, "levelname": "WARNING"}))
    assert content.getvalue().decode(encoding).count(rf"\u732b and {beetle}") == 3


@pytest.mark.parametrize(("text", "program"), [("[tool.kedro]", "kedro"), ("[tool.ruff]", "supcon_pipeline")])
def test_what_is_typed_depends_on_the_folder_and_on_its_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, program: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert program_of(tmp_path) == program
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert program_of(tmp_path) == f".venv/bin/{program}"


@pytest.mark.parametrize(
    ("message", "completed"),
    [
        ("type: kedro run --pipelines a", "type: p run --env e --pipelines a"),
        ("see them with: kedro runs list", "see them with: p runs list"),
        ("first type: .venv/bin/kedro runs list", "first type: .venv/bin/kedro runs list"),
        ("kedro running, and mykedro run", "kedro running, and mykedro run"),
    ],
)
def test_commands_in_a_message_are_completed(message: str, completed: str) -> None:
    assert complete_commands(message, "e", "p") == completed
    assert complete_commands(message, None) == message


@pytest.mark.parametrize(
    ("message", "completed"),
    [
        ("type: kedro run --pipelines a", "type: kedro run --env e --pipelines a --params a.b=1,c.d=x"),
        # What a command says itself stands.
        (
            "For all, type: kedro run --pipelines a --params a.b=2",
            "For all, type: kedro run --env e --pipelines a --params c.d=x,a.b=2",
        ),
        (
            "type: kedro run --pipelines a --nodes b,c; or not",
            "type: kedro run --env e --pipelines a --nodes b,c --params a.b=1,c.d=x; or not",
        ),
        (
            "type: kedro run --pipelines 'a b' --params a.b=2",
            "type: kedro run --env e --pipelines 'a b' --params c.d=x,a.b=2",
        ),
        ("where something other than `kedro run` starts", "where something other than `kedro run` starts"),
    ],
)
def test_commands_in_a_message_are_completed_by_what_was_given(message: str, completed: str) -> None:
    assert complete_commands(message, "e", params={"a": {"b": 1}, "c": {"d": "x"}}) == completed


def test_the_causes_of_an_error_end_where_two_name_each_other() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]
    assert list(causes(None)) == []


def test_the_commands_of_a_session_take_the_place_of_those_before_and_filters_of_others_stay() -> None:
    log, theirs = logging.Logger("kedro.pipeline.node"), logging.Filter()
    log.addFilter(theirs)
    first, second = CommandsInLog(str.upper), CommandsInLog(str.lower)
    first.replace_in(log)
    second.replace_in(log)
    assert log.filters == [theirs, second]
