"""Splits: which images train, choose and test, and none in two of them."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from supcon_pipeline.core.data.images import SPLITS
from supcon_pipeline.core.messages import InputError, name_some


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
        InputError: where train lacks a class or has too few samples of one, or the fractions leave nothing
            to train on.
    """
    if validation_fraction + test_fraction >= 1:
        raise InputError(
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
        raise InputError(
            f"every class must be in train, got {label} in {' and '.join(sorted(set(where)))} only; "
            "add images of it to train or leave the class out"
        )
    if count < len(held_out) + 2:
        purpose = f" to hold {' and '.join(sorted(held_out))} out of it" if held_out else ""
        raise InputError(
            f"every class must have at least {len(held_out) + 2} samples in train{purpose}, got {count} of "
            f"class {label}; two must stay, for one alone has no pair to learn from: "
            "add images or leave the class out"
        )


def handle_leakage(samples: pd.DataFrame, on_leakage: str) -> pd.DataFrame:
    """The samples, with those that are in a split after their own too as `on_leakage` says.

    Validation chooses checkpoints and temperatures, so an image of test in it is a leak as one in train is.

    `remove` gives them the split `removed`, which nothing trains on and nothing scores.

    Raises:
        InputError: with `refuse`, where there is one; names the first few. With `remove`, where a class
            is left with fewer than two images of train, or validation with none.
    """
    leaked = find_leaked(samples)
    if not leaked.any() or on_leakage == "report":
        return samples
    if on_leakage == "refuse":
        raise InputError(
            "images of train must not be in validation or test, nor those of validation in test, "
            f"got {leaked.sum()} that are: {name_some(_name_twins(samples, leaked))}; take them out "
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
            raise InputError(
                "every class must have at least 2 samples in train once leaked images are removed, "
                f"got {count} of class {class_name}; add images, leave the class out, or set "
                "data_prep.on_leakage to report"
            )
    if not (samples["split"] == "validation").any():
        raise InputError(
            "validation must have images once leaked images are removed, got none; add images, or set "
            "data_prep.on_leakage to report"
        )


def find_leaked(samples: pd.DataFrame) -> pd.Series:
    """Which samples are in a split after their own too, by their pixels."""
    is_leaked = pd.Series(False, index=samples.index)
    for position, split in enumerate(SPLITS):
        later = samples.loc[samples["split"].isin(SPLITS[position + 1 :]), "pixel_hash"]
        is_leaked |= (samples["split"] == split) & samples["pixel_hash"].isin(later)
    return is_leaked
