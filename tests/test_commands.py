import io
import logging
import sys

import pytest
from kedro.logging import RichHandler
from rich.console import Console

from supcon_pipeline.commands import escape_what_the_console_lacks

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
