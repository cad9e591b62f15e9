"""Tables."""

import re
from typing import Any

import pandas as pd
from kedro_datasets import pandas
from kedro_datasets._typing import TablePreview

from supcon_pipeline.datasets.checked_file import CheckedFile


class CSVDataset(CheckedFile, pandas.CSVDataset):
    """A table as CSV, in which no text is a formula for a spreadsheet.

    Text that begins with `=`, `+`, `-`, `@`, a tab or a line break, or with such behind apostrophes, is
    written with an apostrophe before it, which loading takes away again. Numbers stay as they are.

    Source:
        OWASP, CSV injection.
    """

    def load(self) -> Any:
        """The table, with its text as it was saved."""
        return _change_text(super().load(), r"^'('*[=+\-@\t\r\n])")

    def save(self, data: pd.DataFrame) -> None:
        """Write the table."""
        super().save(_change_text(data, r"^('*[=+\-@\t\r\n])", "'"))


def _change_text(table: pd.DataFrame, beginning: str, prefix: str = "") -> pd.DataFrame:
    """The table with a beginning of its text replaced by the prefix and the group in the pattern."""

    def change(value: Any) -> Any:
        return re.sub(beginning, rf"{prefix}\1", value) if isinstance(value, str) else value

    texts = {
        position: table.iloc[:, position].map(change).array
        for position in range(table.shape[1])
        if not pd.api.types.is_numeric_dtype(table.iloc[:, position])
    }
    changed = table.copy(deep=False)
    for position, column in texts.items():
        changed.isetitem(position, column)
    return changed.rename(columns=change)


class ParquetDataset(CheckedFile, pandas.ParquetDataset):
    """A table as Parquet."""

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first rows, for Kedro-Viz; Kedro's own reads them from a local file alone."""
        with self._store.reading(self._get_load_path()) as file:
            rows: TablePreview = pandas.ParquetDataset.preview(self._at(file), nrows)
        return rows
