"""Samples: a row for each image, and what is wrong with a set of labelled images."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.data.images import SPLITS, RawImages
from supcon_pipeline.core.data.splits import find_leaked
from supcon_pipeline.core.messages import InputError, name_some


def check_labels(labels: Int[np.ndarray, " n"], class_names: Sequence[str]) -> None:
    """Refuse what cannot be learned, before the work begins.

    Raises:
        InputError: where there is one class, more classes than images, or a class without an image.
    """
    if len(class_names) < 2:
        raise InputError(
            f"images must be of at least 2 classes, got {', '.join(class_names) or 'none'}; "
            "each class is a folder, or a label of its own"
        )
    if len(class_names) > len(labels):
        raise InputError(f"classes must be fewer than images, got {len(class_names)} and {len(labels)}")
    present = set(np.unique(labels).tolist())
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        raise InputError(
            f"every class must have images, got none of {name_some(empty)}; add images or leave the class out"
        )


# What 12 bits come to on the scale of 16; training images that are darker show nothing.
_DARK = 1 / 16


def tabulate_packed(raw: RawImages, rejected: Sequence[tuple[int, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per image that was packed, in their order, and one per image that was not.

    Args:
        raw: the images as their source gives them.
        rejected: position and reason of each that could not be packed.

    Returns:
        `id`, `split` (train where the source has none), `label`, `class_name` and `source` of the packed;
        `id`, `class_name` and `reason` of the others.
    """
    columns = {"id": list(raw.ids), "split": raw.splits or "train", "label": raw.labels}
    table = pd.DataFrame(columns)
    table["class_name"] = np.array(raw.class_names)[raw.labels]
    table["source"] = raw.source
    positions = [position for position, _ in rejected]
    others = table.loc[positions, ["id", "class_name"]].assign(reason=[reason for _, reason in rejected])
    return table.drop(index=positions).reset_index(drop=True), others.reset_index(drop=True)


def check_rejected(rejected: pd.DataFrame, packed: pd.DataFrame, max_rejected: int) -> None:
    """Refuse to go on without too many images.

    Args:
        rejected: `id`, `class_name` and `reason` of those that could not be decoded.
        packed: those that could, with their `class_name`.
        max_rejected: how many may be rejected.

    Raises:
        InputError: where there are more; names the first few. Where no image of a class is left.
    """
    if len(rejected) > max_rejected:
        first = "; ".join(f"{row.id} ({row.reason})" for row in rejected.head(3).itertuples())
        raise InputError(
            f"rejected images must be at most {max_rejected}, got {len(rejected)}: {first}"
            f"{'; and others' if len(rejected) > 3 else ''}; rejected_images has all, mend or remove them "
            "and run all of data_prep again, or raise data_prep.max_rejected to go on without them"
        )
    lost = rejected.loc[~rejected["class_name"].isin(packed["class_name"]), "class_name"].drop_duplicates()
    if len(lost):
        raise InputError(
            f"every class must have an image that can be decoded, got none of {name_some(lost)}; "
            "rejected_images says why, mend its images or leave the class out"
        )


def count_images(samples: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images by split and class name, the classes in the order of their labels."""
    classes = samples.drop_duplicates("label").sort_values("label")["class_name"]
    counts = pd.crosstab(samples["split"], samples["class_name"]).reindex(
        index=SPLITS, columns=classes, fill_value=0
    )
    rows = zip(SPLITS, counts.to_numpy().tolist(), strict=True)
    return {split: dict(zip(classes, row, strict=True)) for split, row in rows}


def describe_warnings(
    samples: pd.DataFrame,
    num_rejected: int = 0,
    ignored: Mapping[str, int] | None = None,
    brightness: float | None = None,
) -> list[str]:
    """What someone should know of these samples before they believe a number, a sentence each.

    Args:
        samples: with the columns `id`, `class_name`, `split` and `pixel_hash`.
        num_rejected: images that could not be decoded.
        ignored: counts of what was not taken from the source, by kind.
        brightness: of the training images, mean and standard deviation together, on the scale 0 to 1.
    """
    found = []
    if num_rejected:
        found.append(f"{num_rejected:,} images could not be decoded; rejected_images says why")
    if ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(ignored.items()))
        found.append(f"not taken from the source: {kinds}")
    if brightness is not None and brightness < _DARK:
        found.append(
            f"the training images are nearly black, hardly brighter than {255 * brightness:.0f} of 255: deep "
            "images must use the range of their type, 12 bits in a file of 16 do not"
        )
    leaked, removed = samples[find_leaked(samples)], samples[samples["split"] == "removed"]
    for split, where in (("train", "validation or test"), ("validation", "test")):
        names = leaked.loc[leaked["split"] == split, "id"]
        if len(names):
            found.append(f"{len(names):,} images of {split} are in {where}: {name_some(names)}")
    if len(removed):
        found.append(f"{len(removed):,} images removed from train or validation: {name_some(removed['id'])}")
    classes = samples.groupby("pixel_hash")["class_name"].transform("nunique")
    if (classes > 1).any():
        found.append(
            f"{(classes > 1).sum():,} images are in more than one class: "
            f"{name_some(samples.loc[classes > 1].sort_values(['pixel_hash', 'id'])['id'], 6)}"
        )
    return [*found, *_describe_counts(samples)]


def _describe_counts(samples: pd.DataFrame) -> list[str]:
    counts = pd.crosstab(samples["class_name"], samples["split"]).reindex(columns=SPLITS, fill_value=0)
    found = []
    for split in ("validation", "test"):
        absent = counts.index[counts[split] == 0].tolist()
        if absent:
            found.append(f"{len(absent):,} classes have no image in {split}: {name_some(absent)}")
    return found
