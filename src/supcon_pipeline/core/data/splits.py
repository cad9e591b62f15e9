"""Splits: which images train, validate and test, with none in two of them."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.data.class_splits import split_classes
from supcon_pipeline.core.data.images import SPLITS
from supcon_pipeline.core.messages import InputError, name_some


def split_samples(
    labels: np.ndarray,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    splits: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """`train`, `validation` or `test` for each sample, in the order of `labels`.

    Existing splits are kept. Missing ones are held out of train, stratified: each gets at least one sample of
    every class, and train keeps at least two, a pair to learn from.

    Args:
        labels: class index or class name of each sample, `[n]`.
        validation_fraction: share of each class, in (0, 1).
        test_fraction: share of each class, in (0, 1).
        seed: the same seed, labels and splits give the same result.
        splits: split of each sample, if the source has splits.
        groups: a number for each sample, the same for duplicates: of each class, they are drawn as one where
            enough are left to draw from.

    Raises:
        InputError: if train has no samples, or too few, of a class.
        ValueError: if the fractions leave nothing to train on.
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
        movable = members[given[members] == "train"]
        if len(movable) < len(fractions) + 2:
            raise _too_few(label, len(movable), labels, given, list(fractions))
        drawn, of_drawn = _first_of_groups(movable, groups, len(fractions) + 2)
        order = generator.permutation(drawn) if fractions else drawn
        left = len(order)
        for position, (name, share) in enumerate(fractions.items()):
            # Leave one sample for each later split and two for train.
            count = min(max(1, round(len(order) * share)), left - len(fractions) + position - 1)
            chosen[order[len(order) - left : len(order) - left + count]] = name
            left -= count
        chosen[movable] = chosen[drawn[of_drawn]]
    return chosen


def split_by_image(
    samples: pd.DataFrame, validation_fraction: float, test_fraction: float, seed: int
) -> pd.DataFrame:
    """The samples with their split settled: a share of every class is held out, duplicates together.

    Args:
        samples: with `class_name`, `duplicate_group`, and the `split` that the source gives.
        validation_fraction: as for `split_samples`.
        test_fraction: as for `split_samples`.
        seed: as for `split_samples`.

    Raises:
        InputError: as for `split_samples`, and where the source marks queries and their gallery.
    """
    if "role" in samples:
        raise InputError(
            "split must be train, validation or test where training sees every class, got query and gallery; "
            "mark both as test, or add --params data_prep.split_by=class"
        )
    given, groups = samples["split"].tolist(), samples["duplicate_group"].to_numpy()
    labels = samples["class_name"].to_numpy()
    chosen = split_samples(labels, validation_fraction, test_fraction, seed, given, groups)
    return samples.assign(split=keep_together(chosen, groups, given))


def _first_of_groups(
    members: Int[np.ndarray, " m"], groups: np.ndarray | None, least: int
) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " m"]]:
    """The first of each group, and which of them is each member's; all members if those are too few."""
    if groups is not None:
        _, first, of_first = np.unique(groups[members], return_index=True, return_inverse=True)
        if len(first) >= least:
            # In the order of the members, so that without duplicates nothing changes.
            return members[np.sort(first)], np.argsort(np.argsort(first))[of_first]
    return members, np.arange(len(members))


def keep_together(
    chosen: np.ndarray, groups: Sequence[str] | np.ndarray, splits: Sequence[str] | None = None
) -> np.ndarray:
    """The splits, with duplicates moved together: to train if one is there, else to validation.

    What the source assigns to validation or test stays there.

    Args:
        chosen: `train`, `validation` or `test` of each sample, from `split_samples`.
        groups: a number or name for each sample, the same for duplicates.
        splits: split of each sample, if the source has splits.
    """
    is_movable = np.full(len(chosen), True) if splits is None else np.array(splits, dtype=object) == "train"
    rank = pd.Series(chosen).map(SPLITS.index)
    first = rank.where(is_movable).groupby(np.array(groups)).transform("min")
    ranks = first.where(is_movable, rank).to_numpy(dtype=np.int64)
    together: np.ndarray = np.array(SPLITS, dtype=object)[ranks]
    return together


def _group_by_label(labels: np.ndarray) -> Iterator[tuple[object, Int[np.ndarray, " m"]]]:
    """Each label with the indices of its samples, both ascending; more labels take no more time."""
    codes, names = pd.factorize(labels, sort=True)
    ends = np.cumsum(np.bincount(codes))
    yield from zip(names, np.split(np.argsort(codes, kind="stable"), ends[:-1]), strict=True)


def _too_few(
    label: object, count: int, labels: np.ndarray, given: np.ndarray, held_out: list[str]
) -> InputError:
    """That train has too few samples of a class, or none, and what to do."""
    try:
        split_classes(labels, 0.1, 0.1, 0, given.tolist())
        remedy = "remove the class, or hold out whole classes with --params data_prep.split_by=class"
    except InputError:
        remedy = "remove the class"
    if not count:
        found = " and ".join(sorted(set(given[labels == label])))
        return InputError(
            f"every class must be in train, got {label} in {found} only; add images of it to train "
            f"or {remedy}"
        )
    purpose = "".join(f", 1 for {name}" for name in sorted(held_out))
    return InputError(
        f"every class must have at least {len(held_out) + 2} samples in train (a pair to learn from"
        f"{purpose}), got {count} of class {label}; add images or {remedy}"
    )


def handle_leakage(samples: pd.DataFrame, on_leakage: str) -> pd.DataFrame:
    """The samples, with those repeated in a later split handled as `on_leakage` says.

    Validation chooses checkpoints and temperatures, so a test image in it is a leak, as it is in train.

    `remove` gives them the split `removed`, which is neither trained on nor scored.

    Raises:
        InputError: with `refuse`, if there are any, naming the first few; with `remove`, if a class is left
            with fewer than two training images, or validation with none.
    """
    leaked = find_leaked(samples)
    if not leaked.any() or on_leakage == "report":
        return samples
    if on_leakage == "refuse":
        raise InputError(_describe_leaks(samples, leaked))
    left: pd.DataFrame = samples.assign(split=samples["split"].mask(leaked, "removed"))
    _require_left(left, samples.loc[leaked & (samples["split"] == "train"), "class_name"])
    return left


def _describe_leaks(samples: pd.DataFrame, leaked: pd.Series) -> str:
    """What is wrong and what to do; identical images are named before those that are nearly so."""
    is_identical = find_leaked(samples, "pixel_hash")
    names = [
        *(f"{own} (as {twin})" for own, twin in _name_twins(samples, is_identical, "pixel_hash")),
        *(f"{own} (like {twin})" for own, twin in _name_twins(samples, leaked & ~is_identical)),
    ]
    try:
        handle_leakage(samples, "remove")
        remove = "--params data_prep.on_leakage=remove (drops them from train and validation) or "
    except InputError:
        remove = ""
    found = (
        "images of train must not be in validation or test, nor those of validation in test, "
        f"got {leaked.sum()} that are: {name_some(names)}; delete them and "
        f"start a new run, or add {remove}--params data_prep.on_leakage=report (keeps them)"
    )
    if is_identical.sum() == leaked.sum():
        return found
    return (
        f"{found}; {(leaked & ~is_identical).sum()} of them are near-duplicates (see near_duplicates): "
        "if they are different photographs, --params data_prep.near_duplicate_similarity=null lets them be"
    )


def _name_twins(
    samples: pd.DataFrame, leaked: pd.Series, column: str = "duplicate_group"
) -> Iterator[tuple[str, str]]:
    """The id of each leaked image, with that of its duplicate in the latest split."""
    order = samples["split"].map(SPLITS.index).argsort(kind="stable")
    last = samples.iloc[order].groupby(column)["id"].transform("last")
    yield from zip(samples.loc[leaked, "id"], last.loc[leaked[leaked].index], strict=True)


def _require_left(samples: pd.DataFrame, changed: pd.Series) -> None:
    counts = samples.loc[samples["split"] == "train", "class_name"].value_counts()
    for class_name in changed.unique():
        count = counts.get(class_name, 0)
        if count < 2:
            raise InputError(
                "every class must have at least 2 samples in train once leaked images are removed, "
                f"got {count} of class {class_name}; add images, remove the class, or use "
                "--params data_prep.on_leakage=report"
            )
    if not (samples["split"] == "validation").any():
        raise InputError(
            "validation must have images once leaked images are removed, got none; add images, or use "
            "--params data_prep.on_leakage=report"
        )


def find_leaked(samples: pd.DataFrame, column: str = "duplicate_group") -> pd.Series:
    """Which samples have a duplicate in a later split.

    Args:
        samples: with `split` and the column.
        column: `duplicate_group`, or `pixel_hash` for identical images alone.
    """
    is_leaked = pd.Series(False, index=samples.index)
    for position, split in enumerate(SPLITS):
        later = samples.loc[samples["split"].isin(SPLITS[position + 1 :]), column]
        is_leaked |= (samples["split"] == split) & samples[column].isin(later)
    return is_leaked
