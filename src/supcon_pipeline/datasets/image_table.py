"""A table of images with a path and a label per row."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.messages import InputError, name_some, suggest
from supcon_pipeline.datasets.csv_table import read_csv
from supcon_pipeline.datasets.image_folder import SPLIT_FOLDERS, FilePaths
from supcon_pipeline.datasets.image_source import ImageSource, clean_words, is_missing, require_one_class

# Of test images: those that are searched for, and those they are searched among.
ROLES = ("query", "gallery")
_MARKS = {**SPLIT_FOLDERS, **dict.fromkeys(ROLES, "test")}


class ImageTableDataset(ImageSource):
    """Images listed in a CSV or Parquet table with a path, a label and optionally a split.

    Spaces around names of columns, paths and labels do not count. A path that has backslashes is one of
    Windows unless there is such a file.

    Args:
        filepath: the table, `.csv` (or `.tsv`) as `read_csv` takes it, or `.parquet`.
        folder: what the paths are relative to, itself relative to the folder of the table; by default that
            folder.
        path_column: name of the column with the paths.
        label_column: name of the column with the labels.
        split_column: name of the column with the splits, whose values are train, valid (or validation, val)
            and test, or for test images query and gallery, where some are searched for among the others; if
            the table has no column `split`, images are split at random by the seed.
        group_column: name of the column with the camera, shop or the like: an image is not to be found by
            another of its class and group. By default it may be absent, as that of splits.
        category_column: name of the column with the kind of thing that a class is of: a batch may be of
            classes of one category. By default it may be absent. These three may be None: none is read.
        metadata: for plugins.
    """

    def __init__(
        self,
        filepath: str,
        folder: str | None = None,
        path_column: str = "path",
        label_column: str = "label",
        split_column: str | None = "split",
        group_column: str | None = "group",
        category_column: str | None = "category",
        metadata: dict[str, Any] | None = None,
    ):
        self.filepath = Path(filepath)
        self.folder = self.filepath.parent / (folder or "")
        self.columns = {"path": path_column, "label": label_column}
        optional = {"split": split_column, "group": group_column, "category": category_column}
        self.optional = {kind: name for kind, name in optional.items() if name is not None}
        self.metadata = metadata

    def load(self) -> RawImages:
        """The paths and labels of the table; no image is read."""
        table = self._read()
        for kind, column in self.columns.items():
            self._require(kind, column, table)
        require_one_class(table[self.columns["label"]], self.columns["label"])
        names = [self._as_here(name) for name in table[self.columns["path"]].astype(str).str.strip()]
        marks = self._read_marks(table)
        class_names, labels = np.unique(clean_words(table[self.columns["label"]]), return_inverse=True)
        return RawImages(
            images=FilePaths(self.folder.absolute(), names),
            labels=labels.astype(np.int64),
            class_names=class_names.tolist(),
            ids=names,
            source=str(self.filepath),
            splits=[_MARKS[mark] for mark in marks] or None,
            roles=[mark if mark in ROLES else "" for mark in marks] if set(ROLES) & set(marks) else None,
            groups=self._read_words(table, "group"),
            categories=self._read_words(table, "category"),
        )

    def _as_here(self, name: str) -> str:
        """A path as this system writes it."""
        is_foreign = "\\" in name and os.sep == "/" and not (self.folder / name).exists()
        return name.replace("\\", "/") if is_foreign else name

    def _read(self) -> pd.DataFrame:
        if not self.filepath.is_file():
            raise InputError(f"table must be a file, got {self.filepath.absolute()}, which does not exist")
        ending = self.filepath.suffix.lower()
        if ending == ".parquet":
            return self._read_parquet()
        if ending in (".csv", ".tsv"):
            return read_csv(self.filepath, [*self.columns.values(), *self.optional.values()])
        raise InputError(f"table must be a .csv or .parquet file, got {self.filepath.name}")

    def _read_parquet(self) -> pd.DataFrame:
        from pyarrow import ArrowException, parquet

        try:
            content = parquet.read_table(self.filepath)
            # Text that is none would be found while it is used.
            content.validate(full=True)
            table: pd.DataFrame = content.to_pandas()
        except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            if getattr(error, "errno", None):
                raise
            reason = " ".join(str(error).split())
            raise InputError(f"table must be Parquet, got {self.filepath.name}: {reason}") from None
        return table.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)

    def _require(self, kind: str, column: str, table: pd.DataFrame) -> None:
        if column not in table:
            raise InputError(
                f"table must have a column {column}, got {', '.join(map(str, table.columns))}; "
                f"set {kind}_column of its entry in the catalog to one of these"
                f"{', or to null for none' if kind in self.optional else ''}"
            )
        self._require_single(column, table)
        if not len(table):
            raise InputError(f"table must have rows, got none in {self.filepath.name}")
        rows = np.flatnonzero(is_missing(table[column]))
        if len(rows):
            raise InputError(
                f"{column} must be given in every row of {self.filepath.name}, got none in {len(rows)}: "
                f"row {name_some(rows + 1)}; fill them in or remove the rows"
            )

    def _require_single(self, column: str, table: pd.DataFrame) -> None:
        if list(table.columns).count(column) > 1:
            raise InputError(
                f"table must have one column {column}, got {list(table.columns).count(column)} in "
                f"{self.filepath.name}; rename or remove the others"
            )

    def _find(self, kind: str, table: pd.DataFrame) -> str | None:
        """The name of an optional column, or None where the table has none.

        Raises:
            InputError: where a column that the catalog names is not there, or is spelt with other capitals.
        """
        column = self.optional.get(kind)
        if column is None or column in table:
            return column
        if column != kind or column in {str(name).lower() for name in table.columns}:
            self._require(kind, column, table)
        return None

    def _read_marks(self, table: pd.DataFrame) -> list[str]:
        """The split of each row as it stands there, or nothing without such a column."""
        column = self._find("split", table)
        if column is None:
            return []
        self._require("split", column, table)
        given = clean_words(table[column]).str.lower()
        unknown = sorted(set(given) - set(_MARKS))
        if unknown:
            raise InputError(
                f"{column} must be one of {', '.join(_MARKS)}, got {name_some(unknown)}; "
                f"{suggest(unknown[0], _MARKS)}"
            )
        marks: list[str] = given.tolist()
        _require_both_roles(column, set(marks))
        return marks

    def _read_words(self, table: pd.DataFrame, kind: str) -> list[str] | None:
        """The word of each row in an optional column; empty where it has none."""
        column = self._find(kind, table)
        if column is None:
            return None
        self._require_single(column, table)
        words: list[str] = clean_words(table[column]).mask(is_missing(table[column]), "").tolist()
        return words

    def _exists(self) -> bool:
        return self.filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self.filepath, "folder": self.folder, **self.columns, **self.optional}


def _require_both_roles(column: str, marks: set[str]) -> None:
    """Refuse marks of which some would not count.

    Raises:
        InputError: where there are queries without a gallery or the reverse, or test images that are neither.
    """
    roles = marks & set(ROLES)
    if roles and (len(roles) < len(ROLES) or "test" in marks):
        raise InputError(
            f"{column} must be query or gallery for every test image, and each for some, got only "
            f"{' and '.join(sorted(marks & {*ROLES, 'test'}))}; mark all of them so, or all as test"
        )
