"""Images saved by Hugging Face `datasets`, in Arrow format."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.io import DatasetError

from supcon_pipeline.core.data.images import ImageItem, RawImages
from supcon_pipeline.core.messages import InputError, name_some, require_extra
from supcon_pipeline.datasets.image_folder import SPLIT_FOLDERS
from supcon_pipeline.datasets.image_source import ImageSource, clean_words, is_missing, require_one_class
from supcon_pipeline.datasets.items import JoinedItems


class ArrowImagesDataset(ImageSource):
    """Labelled images written by `datasets.save_to_disk`: one set, or a dictionary of splits.

    Args:
        path: the folder.
        image_column: name of the column with the images.
        label_column: name of the column with the labels; a `ClassLabel` gives the names of the classes.
        metadata: for plugins.
    """

    def __init__(
        self,
        path: str,
        image_column: str = "image",
        label_column: str = "label",
        metadata: dict[str, Any] | None = None,
    ):
        self.path, self.image_column, self.label_column = path, image_column, label_column
        self.metadata = metadata

    def load(self) -> RawImages:
        """The labels and the encoded images; no image is decoded."""
        parts = self._open_splits()
        names = np.concatenate([self._read_class_names(split, part) for split, part in parts])
        class_names, labels = np.unique(names, return_inverse=True)
        return RawImages(
            images=JoinedItems(
                [self._encoded(part) for _, part in parts], partial(_read_file, column=self.image_column)
            ),
            labels=labels.astype(np.int64),
            class_names=class_names.tolist(),
            ids=[f"{split or 'image'}/{index:07d}" for split, part in parts for index in range(len(part))],
            source=str(self.path),
            splits=[SPLIT_FOLDERS[split] for split, part in parts for _ in range(len(part))]
            if all(split for split, _ in parts)
            else None,
        )

    def _open_splits(self) -> list[tuple[str, Any]]:
        """Name and content of each split; the name is empty for a set without splits."""
        require_extra("huggingface", "datasets")
        from kedro_datasets.huggingface.arrow_dataset import ArrowDataset

        if not Path(self.path).is_dir():
            raise InputError(f"path must be a folder written by datasets.save_to_disk, got {self.path}")
        try:
            loaded = ArrowDataset(path=self.path).load()
        except DatasetError as error:
            if getattr(error.__cause__, "errno", None):
                raise
            raise self._not_saved(error.__cause__ or error) from error
        if not isinstance(loaded, dict):
            return [("", loaded)]
        unknown = sorted(loaded.keys() - SPLIT_FOLDERS.keys())
        if unknown:
            raise InputError(
                f"splits must be {', '.join(SPLIT_FOLDERS)}, got {', '.join(unknown)}; "
                "rename or remove the others before save_to_disk"
            )
        return list(loaded.items())

    def _not_saved(self, reason: BaseException) -> InputError:
        """What to do about a folder that `datasets` does not open."""
        is_empty = isinstance(reason, IndexError)
        words = "a set or split without rows" if is_empty else " ".join(str(reason).split())
        return InputError(
            f"path must be a whole folder written by datasets.save_to_disk, got {self.path} ({words}); write "
            f"it again, for example by datasets.load_dataset({str(self.path)!r}).save_to_disk(<folder>)"
        )

    def _encoded(self, part: Any) -> Any:
        from pyarrow import ArrowException

        from datasets import Image

        column = part.select_columns([self.image_column])
        try:
            return column.cast_column(self.image_column, Image(decode=False))
        except (ArrowException, TypeError, ValueError):
            raise InputError(
                f"{self.image_column} must hold images, or paths or contents of their files, got "
                f"{part.features[self.image_column]}; set image_column of its entry in the catalog to another"
            ) from None

    def _read_class_names(self, split: str, part: Any) -> np.ndarray:
        for column in (self.image_column, self.label_column):
            if column not in part.column_names:
                name = "image_column" if column == self.image_column else "label_column"
                raise InputError(
                    f"columns must hold {column}, got {', '.join(part.column_names)}; "
                    f"set {name} of its entry in the catalog to one of these"
                )
        labels = pd.Series(part.with_format("arrow")[self.label_column].to_pylist(), dtype=object)
        names = getattr(part.features[self.label_column], "names", None)
        if not names:
            require_one_class(labels, self.label_column)
        # A ClassLabel has -1 where there is no label.
        missing = labels.isna() | labels.eq(-1) if names else is_missing(labels)
        if missing.any():
            where = f" of {split}" if split else ""
            raise InputError(
                f"{self.label_column} must be given for every image{where}, got none for {missing.sum():,}: "
                f"row {name_some(np.flatnonzero(missing) + 1)}; fill them in or remove the rows"
            )
        known = range(len(names or ()))
        # A damaged label would be an error, or by a negative number another class.
        unknown = labels[~labels.isin(known)] if names else labels[:0]
        if len(unknown):
            raise InputError(
                f"{self.label_column} must be a number of its {len(known)} classes, from 0, got "
                f"{unknown.iloc[0]} in row {unknown.index[0] + 1}; write the set again"
            )
        words = labels.map(names.__getitem__) if names else clean_words(labels)
        return words.to_numpy(dtype=object)

    def _exists(self) -> bool:
        return Path(self.path).is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"path": self.path, "image_column": self.image_column, "label_column": self.label_column}


def _read_file(row: Mapping[str, Any], column: str) -> ImageItem:
    """The encoded image of a row, or its path; empty bytes where the row has none."""
    file = row[column] or {}
    content, path = file.get("bytes"), file.get("path")
    return content or (Path(path) if content is None and path else b"")
