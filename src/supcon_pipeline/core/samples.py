"""Samples: which split each image is in, and what is wrong with a set of labelled images."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.images import SPLITS, RawImages


def check_labels(labels: Int[np.ndarray, " n"], class_names: Sequence[str]) -> None:
    """Refuse what cannot be learned, before the work begins.

    Raises:
        ValueError: where there is one class, more classes than images, or a class without an image.
    """
    if len(class_names) < 2:
        raise ValueError(
            f"images must be of at least 2 classes, got {', '.join(class_names) or 'none'}; "
            "each class is a folder, or a label of its own"
        )
    if len(class_names) > len(labels):
        raise ValueError(f"classes must be fewer than images, got {len(class_names)} and {len(labels)}")
    present = set(np.unique(labels).tolist())
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        raise ValueError(
            f"every class must have images, got none of {_name_some(empty)}; "
            "add images or leave the class out"
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
        ValueError: where there are more; names the first few. Where no image of a class is left.
    """
    if len(rejected) > max_rejected:
        first = "; ".join(f"{row.id} ({row.reason})" for row in rejected.head(3).itertuples())
        raise ValueError(
            f"rejected images must be at most {max_rejected}, got {len(rejected)}: {first}"
            f"{'; and others' if len(rejected) > 3 else ''}; rejected_images has all, mend or remove them "
            "and run all of data_prep again, or raise data_prep.max_rejected to go on without them"
        )
    lost = rejected.loc[~rejected["class_name"].isin(packed["class_name"]), "class_name"].drop_duplicates()
    if len(lost):
        raise ValueError(
            f"every class must have an image that can be decoded, got none of {_name_some(lost)}; "
            "rejected_images says why, mend its images or leave the class out"
        )


def split_samples(
    labels: np.ndarray,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    splits: Sequence[str] | None = None,
) -> np.ndarray:
    """`train`, `validation` or `test` for each sample, in the order of `labels`.

    A split that there is already stays as it is. One that there is not is held out of train, stratified: it
    has at least one sample of every class, and train keeps two, a pair to learn from.

    Args:
        labels: class index or class name of each sample, `[n]`.
        validation_fraction: share of each class, in (0, 1).
        test_fraction: share of each class, in (0, 1).
        seed: the same seed, labels and splits give the same split.
        splits: of each sample, where the source has a split of its own.

    Raises:
        ValueError: where train lacks a class or has too few samples of one, or the fractions leave nothing
            to train on.
    """
    if validation_fraction + test_fraction >= 1:
        raise ValueError(
            f"validation_fraction + test_fraction must be below 1, got {validation_fraction + test_fraction}"
        )
    given = np.full(len(labels), "train", dtype=object) if splits is None else np.array(splits, dtype=object)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    fractions = {name: share for name, share in fractions.items() if not (given == name).any()}
    generator, chosen = np.random.default_rng(seed), given.copy()
    for label, members in _group_by_label(labels):
        order = members[given[members] == "train"]
        _require_train(label, len(order), given[members], list(fractions))
        order = generator.permutation(order) if fractions else order
        left = len(order)
        for position, (name, share) in enumerate(fractions.items()):
            # One sample stays for each split after this one, and two for train.
            count = min(max(1, round(len(order) * share)), left - len(fractions) + position - 1)
            chosen[order[len(order) - left : len(order) - left + count]] = name
            left -= count
    return chosen


def keep_together(
    chosen: np.ndarray, hashes: Sequence[str] | pd.Series, splits: Sequence[str] | None = None
) -> np.ndarray:
    """The splits, with identical images in one: in train if one of them is, else in validation.

    What the source has put into a split stays there.

    Args:
        chosen: `train`, `validation` or `test` of each sample, as `split_samples` gives them.
        hashes: of the pixels of each sample.
        splits: of each sample, where the source has a split of its own.
    """
    ours = np.full(len(chosen), True) if splits is None else np.array(splits, dtype=object) == "train"
    rank = pd.Series(chosen).map(SPLITS.index)
    first = rank.where(ours).groupby(np.array(hashes)).transform("min")
    together: np.ndarray = np.array(SPLITS, dtype=object)[first.where(ours, rank).to_numpy(dtype=np.int64)]
    return together


def _group_by_label(labels: np.ndarray) -> Iterator[tuple[object, Int[np.ndarray, " m"]]]:
    """Each label, ascending, and where it is, ascending; the time does not grow with the number of labels."""
    codes, names = pd.factorize(labels, sort=True)
    ends = np.cumsum(np.bincount(codes))
    yield from zip(names, np.split(np.argsort(codes, kind="stable"), ends[:-1]), strict=True)


def _require_train(label: object, count: int, where: np.ndarray, held_out: list[str]) -> None:
    if not count:
        raise ValueError(
            f"every class must be in train, got {label} in {' and '.join(sorted(set(where)))} only; "
            "add images of it to train or leave the class out"
        )
    if count < len(held_out) + 2:
        purpose = f" to hold {' and '.join(sorted(held_out))} out of it" if held_out else ""
        raise ValueError(
            f"every class must have at least {len(held_out) + 2} samples in train{purpose}, got {count} of "
            f"class {label}; two must stay, for one alone has no pair to learn from: "
            "add images or leave the class out"
        )


def handle_leakage(samples: pd.DataFrame, on_leakage: str) -> pd.DataFrame:
    """The samples, with those that are in a split after their own too as `on_leakage` says.

    Validation chooses checkpoints and temperatures, so an image of test in it is a leak as one in train is.

    `remove` gives them the split `removed`, which nothing trains on and nothing scores.

    Raises:
        ValueError: with `refuse`, where there is one; names the first few. With `remove`, where a class
            is left with fewer than two images of train, or validation with none.
    """
    leaked = _find_leaked(samples)
    if not leaked.any() or on_leakage == "report":
        return samples
    if on_leakage == "refuse":
        raise ValueError(
            "images of train must not be in validation or test, nor those of validation in test, "
            f"got {leaked.sum()} that are: {_name_some(_name_twins(samples, leaked))}; take them out "
            "and run all of data_prep again, or set data_prep.on_leakage to remove (from train and "
            "validation) or report"
        )
    left: pd.DataFrame = samples.assign(split=samples["split"].mask(leaked, "removed"))
    _require_left(left, samples.loc[leaked & (samples["split"] == "train"), "class_name"])
    return left


def _name_twins(samples: pd.DataFrame, leaked: pd.Series) -> list[str]:
    """The id of each leaked image with that of one that is identical to it."""
    same = samples.groupby("pixel_hash")["id"]
    first, last = (same.transform(end)[leaked] for end in ("first", "last"))
    own = samples["id"][leaked]
    return [f"{name} (as {twin})" for name, twin in zip(own, last.where(last != own, first), strict=True)]


def _require_left(samples: pd.DataFrame, changed: pd.Series) -> None:
    in_train = samples.loc[samples["split"] == "train", "class_name"]
    for class_name in changed.unique():
        count = (in_train == class_name).sum()
        if count < 2:
            raise ValueError(
                "every class must have at least 2 samples in train once leaked images are removed, "
                f"got {count} of class {class_name}; add images, leave the class out, or set "
                "data_prep.on_leakage to report"
            )
    if not (samples["split"] == "validation").any():
        raise ValueError(
            "validation must have images once leaked images are removed, got none; add images, or set "
            "data_prep.on_leakage to report"
        )


def _find_leaked(samples: pd.DataFrame) -> pd.Series:
    is_leaked = pd.Series(False, index=samples.index)
    for position, split in enumerate(SPLITS):
        later = samples.loc[samples["split"].isin(SPLITS[position + 1 :]), "pixel_hash"]
        is_leaked |= (samples["split"] == split) & samples["pixel_hash"].isin(later)
    return is_leaked


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
    batch_size: int | None = None,
    brightness: float | None = None,
) -> list[str]:
    """What someone should know of these samples before they believe a number, a sentence each.

    Args:
        samples: with the columns `id`, `class_name`, `split` and `pixel_hash`.
        num_rejected: images that could not be decoded.
        ignored: counts of what was not taken from the source, by kind.
        batch_size: of shuffled batches, in which a rare class may be alone; none where batches are balanced.
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
    leaked, removed = samples[_find_leaked(samples)], samples[samples["split"] == "removed"]
    for split, where in (("train", "validation or test"), ("validation", "test")):
        names = leaked.loc[leaked["split"] == split, "id"]
        if len(names):
            found.append(f"{len(names):,} images of {split} are in {where}: {_name_some(names)}")
    if len(removed):
        found.append(f"{len(removed):,} images removed from train or validation: {_name_some(removed['id'])}")
    classes = samples.groupby("pixel_hash")["class_name"].transform("nunique")
    if (classes > 1).any():
        found.append(
            f"{(classes > 1).sum():,} images are in more than one class: "
            f"{_name_some(samples.loc[classes > 1].sort_values(['pixel_hash', 'id'])['id'], 6)}"
        )
    return [*found, *_describe_counts(samples), *_describe_rarest(samples, batch_size)]


def _describe_counts(samples: pd.DataFrame) -> list[str]:
    counts = pd.crosstab(samples["class_name"], samples["split"]).reindex(columns=SPLITS, fill_value=0)
    found = []
    for split in ("validation", "test"):
        absent = counts.index[counts[split] == 0].tolist()
        if absent:
            found.append(f"{len(absent):,} classes have no image in {split}: {_name_some(absent)}")
    return found


def _describe_rarest(samples: pd.DataFrame, batch_size: int | None) -> list[str]:
    counts = samples.loc[samples["split"] == "train", "class_name"].value_counts()
    rarest, count, total = counts.index[-1], int(counts.iloc[-1]), int(counts.sum())
    # A batch is expected to hold fewer than two of its images.
    if batch_size is None or count * batch_size >= 2 * total:
        return []
    return [
        f"{rarest} has {count:,} of {total:,} training images: in a shuffled batch of {batch_size:,} it is "
        "often alone or absent, and an image alone has no positive but its own views; "
        "stage1.loader.sampler class_balanced gives each class its share"
    ]


def _name_some(names: Sequence[str] | pd.Series, most: int = 3) -> str:
    return ", ".join(map(str, list(names)[:most])) + (", and others" if len(names) > most else "")
