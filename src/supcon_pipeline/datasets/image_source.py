"""What all sources of images have in common."""

from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from supcon_pipeline.core.data.images import RawImages


class ImageSource(AbstractDataset[Any, RawImages]):
    """Images from outside the project, which are only read."""

    def save(self, data: Any) -> NoReturn:
        """Refused."""
        raise DatasetError(f"{type(self).__name__} must only be read, got save of {type(data).__name__}")


def clean_words(column: pd.Series) -> pd.Series:
    """A column as text, stripped and with accents in one Unicode form (NFC)."""
    return column.astype(str).str.strip().str.normalize("NFC")


def is_missing(column: pd.Series) -> pd.Series:
    """Where a column is empty; other programs write `nan` for a missing value."""
    return column.isna() | clean_words(column).str.lower().isin(["", "nan"])
