"""What all sources of images have in common."""

import re
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.messages import InputError

# A list, or a tuple or set of several, as programs write it into a table of text.
_LIST = re.compile(r"\[\s*(['\"\d-].*)?\]|[({]\s*['\"\d-].*,.*[)}]", re.DOTALL)


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


def require_one_class(column: pd.Series, name: str) -> None:
    """Refuse labels that are several for one image, or no text and no number.

    `cat|dog` is several where `cat` and `dog` are labels of other images.

    Raises:
        InputError: naming the first such row.
    """
    words = {value.strip() for value in column if isinstance(value, str)}
    joined = {word for word in words if _joins(word, words)}
    is_other = column.map(
        lambda value: _is_several(value) or (isinstance(value, str) and value.strip() in joined)
    ).to_numpy(dtype=bool)
    if is_other.any():
        row = int(np.argmax(is_other))
        value = column.iloc[row]
        shown = value.tolist() if isinstance(value, np.ndarray) else value
        raise InputError(
            f"{name} must be one class for each image, as text or a number, got {shown!r} in row {row + 1}; "
            "keep one label per image, several are not supported"
        )


def _joins(word: str, words: set[str]) -> bool:
    """Whether a label consists of other labels."""
    parts = ([part.strip() for part in word.split(mark)] for mark in "|;," if mark in word)
    return any(words.issuperset(split) for split in parts)


def _is_several(value: object) -> bool:
    if isinstance(value, str):
        return _LIST.fullmatch(value.strip()) is not None
    return isinstance(value, list | tuple | set | dict | bytes | np.ndarray)
