"""CSV files as spreadsheets and programs write them."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from supcon_pipeline.core.messages import InputError

_DELIMITERS = (",", ";", "\t", "|")
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV file as text, so that a class may be called `01` or `NA`; blank lines are left out.

    Separated by commas, semicolons, tabs or bars: by that under which the header has the columns, or by what
    a first line such as `sep=;` says. Names of columns are without the spaces around them.

    Args:
        path: the file, in UTF-8, UTF-16 or, with a mark at its start, UTF-32.
        columns: those that are needed.

    Raises:
        InputError: where it is in another encoding, or a row has another number of fields than the header.
    """
    text = _decode(path)
    first, _, rest = text.partition("\n")
    first = first.strip('\r"')
    if first.lower().startswith("sep="):
        delimiter, text = first[4:5] or ",", rest
    else:
        delimiter = max(_DELIMITERS, key=lambda mark: _fit(text, mark, columns))
    rows = _split(text, delimiter, path)
    if not rows:
        raise InputError(f"table must be CSV, got {path.name} without a line")
    return pd.DataFrame(rows[1:], columns=[name.strip() for name in rows[0]], dtype=str)


def _decode(path: Path) -> str:
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content[:2]:
        # UTF-16 without a mark: the first letter is of the header.
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"table must be in UTF-8, got {path.name} with another byte at {error.start + 1}; "
            "save it as CSV UTF-8"
        ) from None


def _fit(text: str, delimiter: str, columns: Sequence[str]) -> tuple[int, int]:
    """How many of the columns the header has under a delimiter, then how many in all."""
    try:
        header: list[str] = next(filter(None, _reader(text, delimiter)), [])
    except csv.Error:
        return 0, 0
    names = [name.strip() for name in header]
    return sum(column in names for column in columns), len(names)


def _reader(text: str, delimiter: str, strict: bool = False) -> Any:
    return csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict
    )


def _split(text: str, delimiter: str, path: Path) -> list[list[str]]:
    """The fields of each row that is not blank, the header first."""
    rows: list[list[str]] = []
    reader = _reader(text, delimiter, strict=True)
    try:
        for row in reader:
            if not "".join(row).strip():
                continue
            if rows and len(row) != len(rows[0]):
                raise InputError(
                    f"every row must have as many fields as the header of {path.name} has columns, "
                    f"{len(rows[0])}, got {len(row)} in row {len(rows)} (line {reader.line_num}); "
                    "name every column in the header, and put values that hold a separator in quotes"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(
            f"table must be CSV, got {path.name} with line {reader.line_num}: {error}; close every quote"
        ) from None
    return rows
