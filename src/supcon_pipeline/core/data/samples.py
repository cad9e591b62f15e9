"""Samples: one row per image, and checks of a set of labelled images."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.data.class_splits import describe_unseen
from supcon_pipeline.core.data.images import SPLITS, RawImages
from supcon_pipeline.core.data.splits import find_leaked
from supcon_pipeline.core.messages import InputError, name_some


def check_labels(labels: Int[np.ndarray, " n"], class_names: Sequence[str]) -> None:
    """Reject labels that cannot be learned, before any work begins.

    Raises:
        InputError: if there are fewer than 2 classes, more classes than images, or a class without images.
    """
    if len(class_names) < 2:
        raise InputError(
            f"images must be of at least 2 classes, got {', '.join(class_names) or 'none'}; "
            "give each class a folder or label of its own"
        )
    if len(class_names) > len(labels):
        raise InputError(
            f"classes must be at most as many as images ({len(labels)}), got {len(class_names)}; "
            "give several images the same label"
        )
    present = set(np.unique(labels).tolist())
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        raise InputError(
            f"every class must have images, got none of {name_some(empty)}; add images or remove the class"
        )


# The maximum of 12 bits on the scale of 16; darker training images show nothing.
_DARK = 1 / 16


def tabulate_packed(raw: RawImages, rejected: Sequence[tuple[int, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per packed image, in order, and one per rejected image.

    Args:
        raw: the images of the source.
        rejected: position and reason of each rejected image.

    Returns:
        `id`, `split` (train if the source has none), `label`, `class_name` and `source` of packed images,
        with `role`, `group` and `category` where the source has them;
        `id`, `class_name`, `split` and `reason` of rejected ones.
    """
    columns = {"id": list(raw.ids), "split": raw.splits or "train", "label": raw.labels}
    table = pd.DataFrame(columns)
    table["class_name"] = np.array(raw.class_names)[raw.labels]
    table["source"] = raw.source
    for column, given in (("role", raw.roles), ("group", raw.groups), ("category", raw.categories)):
        if given is not None:
            table[column] = list(given)
    positions = [position for position, _ in rejected]
    failed = table.loc[positions, ["id", "class_name", "split"]].assign(
        reason=[reason for _, reason in rejected]
    )
    return table.drop(index=positions).reset_index(drop=True), failed.reset_index(drop=True)


def check_rejected(rejected: pd.DataFrame, packed: pd.DataFrame, max_rejected: int) -> None:
    """Refuse to go on if too many images were rejected.

    Args:
        rejected: `id`, `class_name`, `split` and `reason` of the rejected images.
        packed: `class_name` and `split` of the packed images.
        max_rejected: how many may be rejected.

    Raises:
        InputError: if there are more, naming the first few, or if no image of a class or of a split is left.
    """
    if len(rejected) > max_rejected:
        first = name_some(f"{row.id} ({row.reason})" for row in rejected.itertuples())
        raise InputError(
            f"rejected images must be at most {max_rejected}, got {len(rejected)}: {first}; fix or remove "
            "them (rejected_images lists all) and start a new run, or go on without them: "
            f"--params data_prep.max_rejected={len(rejected)}"
        )
    for column, kind in (("class_name", "class"), ("split", "split")):
        lost = rejected.loc[~rejected[column].isin(packed[column]), column].drop_duplicates()
        if len(lost):
            raise InputError(
                f"every {kind} must have an image that can be decoded, got none of {name_some(lost)}; "
                f"rejected_images says why, fix its images or remove the {kind}"
            )


def check_splits(samples: pd.DataFrame) -> None:
    """Refuse splits of which one is empty because identical images were kept together.

    Raises:
        InputError: naming the split.
    """
    for split in SPLITS:
        if not (samples["split"] == split).any():
            count = samples["pixel_hash"].nunique()
            raise InputError(
                f"{split} must have images, got none: of {len(samples):,} images only {count:,} differ, and "
                "identical ones stay in one split; look for files that are blank or copies of one another"
            )


def count_images(samples: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Number of images by split and class name, with classes in label order."""
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
    near_duplicates: pd.DataFrame | None = None,
) -> list[str]:
    """What to know about these samples before trusting a metric, one sentence each.

    Args:
        samples: with the columns `id`, `class_name`, `split`, `pixel_hash` and `duplicate_group`.
        num_rejected: number of images that could not be decoded.
        ignored: number of entries of the source that were not used, by kind.
        brightness: mean plus standard deviation of the training images, on the scale 0 to 1.
        near_duplicates: `first` and `second`, rows of the samples that look nearly the same.
    """
    found = []
    if num_rejected:
        found.append(f"{num_rejected:,} images could not be decoded; rejected_images says why")
    if ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(ignored.items()))
        found.append(f"not taken from the source: {kinds}")
    if brightness is not None and brightness < _DARK:
        found.append(
            f"the training images are nearly black, hardly brighter than {255 * brightness:.0f} of 255: "
            "images of more than 8 bits must use their full range, which 12 bits in a 16-bit file do not"
        )
    found += _describe_leaked(samples)
    removed = samples[samples["split"] == "removed"]
    if len(removed):
        found.append(f"{len(removed):,} images removed from train or validation: {name_some(removed['id'])}")
    found += _describe_ambiguous(samples)
    if near_duplicates is not None:
        found += _describe_crowds(samples, near_duplicates)
    return [*found, *(describe_unseen(samples) or _describe_counts(samples))]


def _describe_leaked(samples: pd.DataFrame) -> list[str]:
    identical = find_leaked(samples, "pixel_hash")
    kinds = ((identical, "are in"), (find_leaked(samples) & ~identical, "look nearly the same as one in"))
    found = []
    for split, where in (("train", "validation or test"), ("validation", "test")):
        for is_leaked, verb in kinds:
            names = samples.loc[is_leaked & (samples["split"] == split), "id"]
            if len(names):
                found.append(f"{len(names):,} images of {split} {verb} {where}: {name_some(names)}")
    return found


def _describe_ambiguous(samples: pd.DataFrame) -> list[str]:
    """Images whose duplicates are of another class."""
    identical, alike = (
        samples.groupby(column)["class_name"].transform("nunique") > 1
        for column in ("pixel_hash", "duplicate_group")
    )
    kinds = (
        (identical, "are in more than one class"),
        (alike & ~identical, "look nearly the same as one of another class"),
    )
    return [
        f"{chosen.sum():,} images {verb}: "
        f"{name_some(samples.loc[chosen].sort_values(['duplicate_group', 'id'])['id'], 6)}"
        for chosen, verb in kinds
        if chosen.any()
    ]


def _describe_crowds(samples: pd.DataFrame, near_duplicates: pd.DataFrame) -> list[str]:
    """Images that look like too many others to be copies."""
    groups = samples["duplicate_group"].to_numpy()
    first, second = near_duplicates[["first", "second"]].to_numpy(dtype=np.int64).T
    is_apart = groups[first] != groups[second]
    crowd = np.unique([first[is_apart], second[is_apart]])
    if not len(crowd):
        return []
    return [
        f"{len(crowd):,} images look nearly the same as very many others, which copies do not; they were not "
        f"kept together: {name_some(samples['id'].iloc[crowd])}"
    ]


def _describe_counts(samples: pd.DataFrame) -> list[str]:
    counts = pd.crosstab(samples["class_name"], samples["split"]).reindex(columns=SPLITS, fill_value=0)
    found = []
    for split in ("validation", "test"):
        absent = counts.index[counts[split] == 0].tolist()
        if absent:
            found.append(f"{len(absent):,} classes have no image in {split}: {name_some(absent)}")
    return found
