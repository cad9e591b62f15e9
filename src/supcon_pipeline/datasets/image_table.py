"""A table of images with a path and a label per row."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.messages import InputError, name_some, suggest
from supcon_pipeline.datasets.image_folder import SPLIT_FOLDERS, FilePaths
from supcon_pipeline.datasets.image_source import ImageSource, clean_words, is_missing


class ImageTableDataset(ImageSource):
    """Images listed in a CSV or Parquet table with a path, a label and optionally a split.

    Args:
        filepath: the table, `.csv` or `.parquet`.
        folder: what the paths are relative to, itself relative to the folder of the table; by default that
            folder.
        path_column: name of the column with the paths.
        label_column: name of the column with the labels.
        split_column: name of the column with the splits, whose values are train, valid (or validation, val)
            and test; if the table has no such column, images are split at random by the seed.
        metadata: for plugins.
    """

    def __init__(
        self,
        filepath: str,
        folder: str | None = None,
        path_column: str = "path",
        label_column: str = "label",
        split_column: str = "split",
        metadata: dict[str, Any] | None = None,
    ):
        self.filepath = Path(filepath)
        self.folder = self.filepath.parent / (folder or "")
        self.columns = {"path": path_column, "label": label_column, "split": split_column}
        self.metadata = metadata

    def load(self) -> RawImages:
        """The paths and labels of the table; no image is read."""
        table = self._read()
        for column in (self.columns["path"], self.columns["label"]):
            self._require(column, table)
        names = table[self.columns["path"]].astype(str).tolist()
        class_names, labels = np.unique(clean_words(table[self.columns["label"]]), return_inverse=True)
        return RawImages(
            images=FilePaths(self.folder.absolute(), names),
            labels=labels.astype(np.int64),
            class_names=class_names.tolist(),
            ids=names,
            source=str(self.filepath),
            splits=self._read_splits(table),
        )

    def _read(self) -> pd.DataFrame:
        if not self.filepath.is_file():
            raise InputError(f"table must be a file, got {self.filepath.absolute()}, which does not exist")
        if self.filepath.suffix.lower() == ".parquet":
            return pd.read_parquet(self.filepath)
        if self.filepath.suffix.lower() == ".csv":
            return self._read_csv()
        raise InputError(f"table must be a .csv or .parquet file, got {self.filepath.name}")

    def _read_csv(self) -> pd.DataFrame:
        try:
            # As text, so that a class may be called `01` or `NA`.
            return pd.read_csv(self.filepath, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                f"table must be in UTF-8, got {self.filepath.name} with another byte at {error.start + 1}; "
                "save it as CSV UTF-8"
            ) from error
        except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"table must be CSV, got {self.filepath.name}: {reason}") from error

    def _require(self, column: str, table: pd.DataFrame) -> None:
        if column not in table:
            raise InputError(
                f"table must have a column {column}, got {', '.join(map(str, table.columns))}; "
                f"set {self._argument_of(column)} of its entry in the catalog to one of these"
            )
        if not len(table):
            raise InputError(f"table must have rows, got none in {self.filepath.name}")
        rows = np.flatnonzero(is_missing(table[column]))
        if len(rows):
            raise InputError(
                f"{column} must be given in every row of {self.filepath.name}, got none in {len(rows)}: "
                f"row {name_some(rows + 1)}; fill them in or remove the rows"
            )

    def _argument_of(self, column: str) -> str:
        """The argument of this dataset that names a column."""
        return next(f"{kind}_column" for kind, name in self.columns.items() if name == column)

    def _read_splits(self, table: pd.DataFrame) -> list[str] | None:
        column = self.columns["split"]
        if column not in table:
            return None
        self._require(column, table)
        given = clean_words(table[column]).str.lower()
        unknown = sorted(set(given) - set(SPLIT_FOLDERS))
        if unknown:
            raise InputError(
                f"{column} must be one of {', '.join(SPLIT_FOLDERS)}, got {name_some(unknown)}; "
                f"{suggest(unknown[0], SPLIT_FOLDERS)}"
            )
        return given.map(SPLIT_FOLDERS).tolist()

    def _exists(self) -> bool:
        return self.filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self.filepath, "folder": self.folder, **self.columns}
