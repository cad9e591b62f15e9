"""Some of the images where all would take too long, drawn by a seed."""

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

logger = logging.getLogger(__name__)
# The split of an image that is not used.
LEFT_OUT = "left out"


def choose_points(strata: pd.Series, max_points: int, seed: int) -> Int[np.ndarray, " m"]:
    """Positions of at most `max_points` rows, ascending, a stratified sample.

    Each stratum is shuffled and its rows are spread evenly over [0, 1]; the rows with the lowest values are
    taken. So each stratum has its share to within one row, and a smaller sample from the same seed is part of
    a larger one.

    Args:
        strata: the stratum of each row.
        max_points: at least 1.
        seed: seed of the shuffle.
    """
    if len(strata) <= max_points:
        return np.arange(len(strata))
    order = np.random.default_rng(seed).permutation(len(strata))
    groups = strata.iloc[order].groupby(strata.iloc[order], sort=False)
    position = (groups.cumcount() + 0.5) / groups.transform("size")
    chosen: np.ndarray = np.sort(order[np.argsort(position.to_numpy(), kind="stable")[:max_points]])
    return chosen


def choose_paired(
    labels: Int[np.ndarray, " n"], copies: Int[np.ndarray, " n"], max_points: int, seed: int
) -> Int[np.ndarray, " m"]:
    """Positions of at most `max_points` rows, ascending, to be paired with one another.

    Rows are drawn by twos, so that a class that is drawn has a pair: first one of each class, then others in
    proportion. Rows that make no pair of one class are together as one class. A smaller sample from the same
    seed is part of a larger one.

    Args:
        labels: the class of each row.
        copies: a number for each row, the same for copies of one another, which make no pair.
        max_points: at least 1; from 3 on there is a pair of one class and one of two, if all rows have both.
        seed: seed of the shuffle.
    """
    count = len(labels)
    if count <= max_points:
        return np.arange(count)
    order = np.random.default_rng(seed).permutation(count)
    rows = pd.DataFrame({"label": labels, "copy": copies}).iloc[order]
    # Two that are no copies come first.
    num_before = rows.groupby(["label", "copy"]).cumcount().to_numpy()
    rows = rows.iloc[np.argsort(num_before, kind="stable")]
    is_alone = rows.groupby("label")["copy"].transform("nunique") == 1
    groups = rows.groupby(rows["label"].mask(is_alone, -1), sort=False)
    position = groups.cumcount() // 2 * 2 / groups["copy"].transform("size")
    first = np.lexsort((groups.ngroup().mask(is_alone, count), position))[:max_points]
    chosen: np.ndarray = np.sort(rows.index.to_numpy()[first])
    return chosen


def limit_rows(
    rows: Int[np.ndarray, " n"],
    strata: Shaped[np.ndarray, " n"],
    limit: int,
    seed: int,
    what: str,
    parameter: str,
) -> Int[np.ndarray, " m"]:
    """The rows, or a stratified sample of them if they are more than the limit, which the log then says.

    Args:
        rows: indices.
        strata: the stratum of each row, such as its class.
        limit: the most rows, at least 1.
        seed: seed of the sample; a smaller one is part of a larger one.
        what: what the rows are and what is done with them, as a sentence goes on after their number.
        parameter: full name of the parameter that is the limit.
    """
    if len(rows) <= limit:
        return rows
    _say_limited(limit, len(rows), what, parameter, seed)
    chosen: np.ndarray = rows[choose_points(pd.Series(strata), limit, seed)]
    return chosen


def limit_splits(
    samples: pd.DataFrame, splits: tuple[str, ...], limit: int, seed: int, what: str, parameter: str
) -> pd.DataFrame:
    """The samples, with so many of these splits that none has more than the limit; others are in no split.

    Args:
        samples: with `split` and `label`.
        splits: those that are limited.
        limit: the most samples of each, at least 1.
        seed: as for `limit_rows`.
        what: as for `limit_rows`, after the name of the split.
        parameter: as for `limit_rows`.
    """
    labels = samples["label"].to_numpy()

    def choose(rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        return choose_points(pd.Series(labels[rows]), limit, seed)

    return _limit_each(samples, splits, limit, seed, what, parameter, choose)


def limit_paired_splits(
    samples: pd.DataFrame, splits: tuple[str, ...], limit: int, seed: int, parameter: str
) -> pd.DataFrame:
    """As `limit_splits`, of images that are paired with one another: by `choose_paired`.

    Args:
        samples: with `split`, `label` and `duplicate_group`.
        splits: those that are limited.
        limit: as for `choose_paired`.
        seed: as for `choose_paired`.
        parameter: as for `limit_rows`.
    """
    labels, copies = samples["label"].to_numpy(), samples["duplicate_group"].to_numpy()

    def choose(rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        return choose_paired(labels[rows], copies[rows], limit, seed)

    return _limit_each(samples, splits, limit, seed, "are paired", parameter, choose)


def _limit_each(
    samples: pd.DataFrame,
    splits: tuple[str, ...],
    limit: int,
    seed: int,
    what: str,
    parameter: str,
    choose: Callable[[Int[np.ndarray, " n"]], Int[np.ndarray, " m"]],
) -> pd.DataFrame:
    """The samples, with the chosen positions of each split that has more rows than the limit."""
    split = samples["split"].to_numpy(dtype=object)
    for name in splits:
        rows = np.flatnonzero(split == name)
        if len(rows) > limit:
            _say_limited(limit, len(rows), f"{name} images {what}", parameter, seed)
            split[np.delete(rows, choose(rows))] = LEFT_OUT
    return samples.assign(split=split)


def _say_limited(limit: int, count: int, what: str, parameter: str, seed: int) -> None:
    logger.info("%s of %s %s (%s), drawn by seed %d", f"{limit:,}", f"{count:,}", what, parameter, seed)
