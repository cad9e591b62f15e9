"""What all sources of labelled images have in common."""

from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from supcon_pipeline.core.data.images import RawImages


class ImageSource(AbstractDataset[Any, RawImages]):
    """Labelled images of someone else's, which are only read."""

    def save(self, data: Any) -> NoReturn:
        """Refused."""
        raise DatasetError(f"{type(self).__name__} must only be read, got {type(data).__name__} to save")


def clean_words(column: pd.Series) -> pd.Series:
    """The words of a column as they look: without spaces around them, each accent spelled in one way."""
    return column.astype(str).str.strip().str.normalize("NFC")


def is_missing(column: pd.Series) -> pd.Series:
    """Where a column has no word; `nan` is what other programs write where they have none."""
    return column.isna() | clean_words(column).str.lower().isin(["", "nan"])
