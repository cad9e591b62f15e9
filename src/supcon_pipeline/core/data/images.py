"""Images and embeddings with what is known of each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from supcon_pipeline.core.data.class_splits import has_unseen_classes
from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.mapping import MappedFile, file_of
from supcon_pipeline.core.messages import InputError, printable
from supcon_pipeline.core.named_tensors import NamedTensors, require_order

SPLITS = ("train", "validation", "test")
# An image as a source gives it: pixels, or a file by its path or its content.
ImageItem = np.ndarray | Path | bytes


@dataclass(frozen=True)
class RawImages:
    """Labelled images as a source gives them, of any size.

    Args:
        images: one item per image: an array `[height, width]` or `[height, width, channels]`, uint8, or an
            image file as its path or its bytes. A sequence that makes its items when they are asked for keeps
            nothing in memory.
        labels: one class index per image, `[n]`, from 0 to `len(class_names) - 1`.
        class_names: one name per class; what cannot be seen is written out, here and in the ids.
        ids: one name per image, unique.
        source: where the images come from, in words.
        splits: `train`, `validation` or `test` for each image, where the source has a split of its own.
        roles: `query`, `gallery` or nothing for each image, where the source says which test images are
            searched for, and among which.
        groups: a name for each image, such as its camera or shop, where the source has them: an image is not
            to be found by another of its class and group.
        categories: for each image the kind of thing that its class is of, where the source has them.
        ignored: what else the source holds and is not taken, kind to count.

    Raises:
        InputError: where the counts differ, an id repeats, or a label or a split is none.
    """

    images: Sequence[ImageItem]
    labels: np.ndarray
    class_names: Sequence[str]
    ids: Sequence[str]
    source: str
    splits: Sequence[str] | None = None
    roles: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    categories: Sequence[str] | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("class_names", "ids"):
            object.__setattr__(self, name, list(map(printable, getattr(self, name))))
        counts = {"images": len(self.images), "labels": len(self.labels), "ids": len(self.ids)}
        optional = {name: getattr(self, name) for name in ("splits", "roles", "groups", "categories")}
        counts |= {name: len(column) for name, column in optional.items() if column is not None}
        if not len(self.ids):
            raise InputError(f"raw images must be at least one, got none in {self.source}")
        if len(set(counts.values())) != 1:
            raise InputError(f"raw images must have one label and one id each, got {counts}")
        _require_unique(self.ids)
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise InputError(
                f"labels must be class indices below {len(self.class_names)}, "
                f"got {self.labels.min()} to {self.labels.max()}"
            )
        unknown = set(self.splits or ()) - set(SPLITS)
        if unknown:
            raise InputError(f"splits must be {', '.join(SPLITS)}, got {sorted(unknown)}")


def _require_unique(ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        seen: dict[str, int] = {}
        # `setdefault` gives where a name was first, which is here for one that is new.
        place = next(index for index, name in enumerate(ids) if seen.setdefault(name, index) != index)
        raise InputError(
            f"ids must be unique, got {len(ids) - len(set(ids))} repeated, the first is {ids[place]} "
            f"of image {place + 1}, which image {seen[ids[place]] + 1} has; remove one"
        )


@dataclass(frozen=True)
class LabelledImages:
    """Packed images with the label and the split of each.

    Args:
        images: as `data_prep` stores them, may be memory-mapped.
        labels: class indices.
        splits: `train`, `validation` or `test`.
        class_names: by label; for messages.
        copies: a number for each image, the same for duplicates; none where they are not known.
        categories: the kind of thing that each image's class is of; none where they are not known.
    """

    images: StoredImages
    labels: Int[np.ndarray, " n"]
    splits: np.ndarray
    class_names: Mapping[int, str] = field(default_factory=dict)
    copies: Int[np.ndarray, " n"] | None = None
    categories: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Send memory-mapped images to another process as the place of their file, not as pixels."""
        return {**self.__dict__, "images": file_of(self.images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        self.__dict__.update(state, images=images.open() if isinstance(images, MappedFile) else images)

    @classmethod
    def of(cls, images: StoredImages, samples: pd.DataFrame) -> Self:
        """Packed images with `label`, `split` and `class_name` of the samples, one row for each.

        And with `category`, where samples have it.
        """
        names = dict(zip(samples["label"], samples["class_name"], strict=True))
        labels, splits = (samples[name].to_numpy() for name in ("label", "split"))
        categories = samples["category"].to_numpy(dtype=str) if "category" in samples else None
        return cls(images, labels, splits, names, copies_of(samples), categories)

    @property
    def num_classes(self) -> int:
        """One more than the highest label of train."""
        return int(self.labels[self.indices("train")].max()) + 1

    @property
    def has_unseen_classes(self) -> bool:
        """Whether no class that is validated or tested is in train."""
        return has_unseen_classes(self.labels, np.asarray(self.splits))

    def indices(self, split: str) -> Int[np.ndarray, " m"]:
        """Where the images of a split are, ascending.

        Raises:
            ValueError: where the split has no image.
        """
        found = np.flatnonzero(np.asarray(self.splits) == split)
        if not len(found):
            raise ValueError(f"split must be one of {', '.join(sorted(set(self.splits)))}, got {split!r}")
        return found


@dataclass(frozen=True)
class LabelledEmbeddings:
    """What a model gives for the images of a run, with the label and the split of each.

    Args:
        outputs: by name, one row per image: `embedding`, and `projection` or `logits` where the model has
            such a head; of logits perhaps fewer, see `logits_rows`.
        labels: class indices.
        splits: `train`, `validation` or `test`; another word where an image was removed from all splits.
        copies: a number for each image, the same for duplicates.
        logits_rows: the images whose logits there are, ascending; None where there are those of all.
    """

    outputs: Mapping[str, Float[np.ndarray, "n dim"]]
    labels: Int[np.ndarray, " n"]
    splits: np.ndarray
    copies: Int[np.ndarray, " n"]
    logits_rows: Int[np.ndarray, " m"] | None = None

    @property
    def has_unseen_classes(self) -> bool:
        """Whether no class that is validated or tested is in train."""
        return has_unseen_classes(self.labels, np.asarray(self.splits))

    @classmethod
    def of(cls, embeddings: NamedTensors, samples: pd.DataFrame) -> Self:
        """The outputs, not copied, with `label` and `split` of the samples.

        Raises:
            InputError: where the embeddings are of other samples, or of the same in another order.
        """
        require_order(embeddings, samples["id"])
        outputs = {name: tensor.numpy() for name, tensor in embeddings.tensors.items()}
        labels, splits = (samples[name].to_numpy() for name in ("label", "split"))
        logits_rows = outputs.pop("logits_rows", None)
        return cls(outputs, labels, splits, copies_of(samples), logits_rows)

    def rows_of(self, *splits: str) -> Int[np.ndarray, " m"]:
        """Where the images of these splits are, ascending."""
        return np.flatnonzero(np.isin(self.splits, splits))

    def select(self, output: str, *splits: str) -> tuple[Float[np.ndarray, "m dim"], Int[np.ndarray, " m"]]:
        """An output and the labels for the images of these splits, in their order.

        Raises:
            ValueError: where the logits of one of them were not kept.
        """
        rows = places = self.rows_of(*splits)
        if output == "logits" and self.logits_rows is not None:
            if not np.isin(rows, self.logits_rows).all():
                raise ValueError(f"splits must be those whose logits were kept, got {', '.join(splits)}")
            places = np.searchsorted(self.logits_rows, rows)
        return self.outputs[output][places], self.labels[rows]


def copies_of(samples: pd.DataFrame) -> Int[np.ndarray, " n"]:
    """A number for each sample that duplicates share; where samples do not say it, none do."""
    known: np.ndarray = samples.get("duplicate_group", pd.Series(range(len(samples)))).to_numpy()
    return known


def rows_of(samples: pd.DataFrame, *splits: str) -> Int[np.ndarray, " m"]:
    """Where the samples of these splits are, ascending; in all splits together, what is in use."""
    return np.flatnonzero(samples["split"].isin(splits))


def searched_rows(samples: pd.DataFrame) -> Int[np.ndarray, " m"]:
    """Where the samples are that new images are searched among, ascending.

    Those of train; where train lacks the classes that are held out, all in use.
    """
    labels, splits = samples["label"].to_numpy(), samples["split"].to_numpy()
    return rows_of(samples, *(SPLITS if has_unseen_classes(labels, splits) else ["train"]))


def spread_evenly(indices: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """At most `count` of the indices, in their order and evenly spread over all of them.

    Images often come class by class: the first few are of one class, these are of all.

    Raises:
        ValueError: where the count is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    chosen = min(count, len(indices))
    return indices[np.arange(chosen) * len(indices) // max(chosen, 1)]
