"""Verification, "are two images of one class?": errors over all pairs of a set, in bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from supcon_pipeline.core.metrics.similarities import HALF_STEPS, SIMILARITY_STEP, TILE_SIZE, short_rows
from supcon_pipeline.core.vectors import require_labels, require_rows

# So few are sorted faster than all that could occur are counted.
_FEW_STEPS = 2**17
# An error rate is stated where at least so many errors are expected.
MIN_FALSE_MATCHES = 30
# Points of the curve: so many along each axis, and along the logarithm of the rate of false matches.
NUM_POINTS = 100


@dataclass(frozen=True)
class PairCounts:
    """The pairs of a set by their cosine similarity.

    Attributes:
        similarities: those that occur, highest first, multiples of 2**-22.
        matches: the number of pairs of one class at each.
        non_matches: the number of pairs of two classes at each.
    """

    similarities: Float[np.ndarray, " t"]
    matches: Int[np.ndarray, " t"]
    non_matches: Int[np.ndarray, " t"]


@dataclass(frozen=True)
class ErrorRates:
    """The errors at each threshold; a pair at least as similar as the threshold is taken for a match.

    Attributes:
        thresholds: cosine similarities, highest first; the first takes no pair for a match, the last all.
        fmr: false match rate, the share of pairs of two classes that are taken for a match; rising.
        fnmr: false non-match rate, the share of pairs of one class that are not; falling.
    """

    thresholds: Float[np.ndarray, " t"]
    fmr: Float[np.ndarray, " t"]
    fnmr: Float[np.ndarray, " t"]


def count_pairs(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " m"],
    copies: Int[np.ndarray, " n"] | None = None,
    tile_size: int | None = None,
) -> PairCounts:
    """All pairs of some rows, each once, by class and cosine similarity.

    Exact, but that similarities are rounded to 2**-22, about the rounding error of float32 embeddings. Memory
    is bounded by a tile of pairs and a number for each similarity.

    Args:
        embeddings: float, one row per image.
        labels: the class of each row.
        rows: indices of the rows that are paired, none twice.
        copies: a number for each row, the same for images that are copies of one another and make no pair.
        tile_size: similarities held at once; if not given, as many as suit the device.

    Raises:
        ValueError: if counts differ, a row is out of range, or there is no pair of one class, or none of two.
        InputError: if a row is not finite.
    """
    require_labels("embeddings", embeddings, labels)
    if copies is not None and len(copies) != len(embeddings):
        raise ValueError(f"copies must have one number per row ({len(embeddings)}), got {len(copies)}")
    rows = np.asarray(rows)
    require_rows("rows", rows, len(embeddings))
    short, classes = short_rows(np.asarray(embeddings)[rows]), np.asarray(labels)[rows]
    numbers = np.arange(len(rows)) if copies is None else np.asarray(copies)[rows]
    return _tabulate(*_count_by_step(short, classes, numbers, tile_size))


def _count_by_step(
    short: Float[np.ndarray, "m dim"],
    classes: Int[np.ndarray, " m"],
    numbers: Int[np.ndarray, " m"],
    tile_size: int | None,
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """The number of pairs at each step of similarity, and of those of one class; on a GPU if there is one."""
    from supcon_pipeline.core.device import find_gpu
    from supcon_pipeline.core.metrics.device_pairs import count_on_device

    if gpu := find_gpu():
        return count_on_device(short, classes, numbers, gpu, tile_size)
    return _count_on_cpu(short, classes, numbers, tile_size or TILE_SIZE)


def _count_on_cpu(
    short: Float[np.ndarray, "m dim"],
    classes: Int[np.ndarray, " m"],
    numbers: Int[np.ndarray, " m"],
    tile_size: int,
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    pairs, matches = np.zeros((2, 2 * HALF_STEPS), dtype=np.int64)
    start = 0
    while start < len(short):
        stop = min(len(short), start + max(1, tile_size // (len(short) - start)))
        # Pairs with rows before these were counted with those.
        steps = similarity_steps(short[start:stop], short[start:])
        is_pair = numbers[start:stop, None] != numbers[start:]
        is_pair[:, : stop - start] &= ~np.tri(stop - start, dtype=bool)
        _count(pairs, steps.ravel(), 1)
        _count(pairs, steps[~is_pair], -1)
        is_pair &= classes[start:stop, None] == classes[start:]
        _count(matches, steps[is_pair], 1)
        start = stop
    return pairs, matches


def similarity_steps(
    rows: Float[np.ndarray, "r dim"], others: Float[np.ndarray, "s dim"]
) -> Int32[np.ndarray, "r s"]:
    """Cosine similarities of short rows, counted in steps from below the lowest."""
    # Scaled by a power of two, the products are as exact as before.
    similarities = (rows / SIMILARITY_STEP) @ others.T
    steps = np.empty(similarities.shape, dtype=np.int32)
    np.rint(similarities, out=steps, casting="unsafe")
    steps += HALF_STEPS
    return steps


def _count(counts: Int[np.ndarray, " t"], steps: Int[np.ndarray, " p"], sign: int) -> None:
    """Add each step to its count, or take it away."""
    if len(steps) < _FEW_STEPS:
        occurring, found = np.unique(steps, return_counts=True)
        counts[occurring] += sign * found
    else:
        lowest = steps.min()
        found = np.bincount(steps - lowest)
        counts[lowest : lowest + len(found)] += sign * found


def _tabulate(pairs: Int[np.ndarray, " t"], matches: Int[np.ndarray, " t"]) -> PairCounts:
    """Numbers by step of similarity as those of the similarities that occur."""
    occurring = np.flatnonzero(pairs)[::-1]
    counts = PairCounts(
        (occurring - HALF_STEPS) * SIMILARITY_STEP,
        matches[occurring],
        pairs[occurring] - matches[occurring],
    )
    for kind, numbers in (("one class", counts.matches), ("two classes", counts.non_matches)):
        if not numbers.any():
            raise ValueError(f"rows must make a pair of images of {kind}, got none")
    return counts


def error_rates(counts: PairCounts) -> ErrorRates:
    """The error rates at every threshold that tells pairs apart.

    Thresholds stand half a step below the similarity they accept, so that they hold for similarities that
    are not rounded, too.

    Source:
        ISO/IEC 19795-1:2021, Biometric performance testing, for FMR and FNMR. Fawcett 2006, An Introduction
        to ROC Analysis, algorithm 1: the curve is FMR against 1 - FNMR.
    """
    accepted = np.concatenate([counts.similarities[:1] + SIMILARITY_STEP, counts.similarities])
    false, true = (
        np.concatenate([[0], np.cumsum(numbers)]) for numbers in (counts.non_matches, counts.matches)
    )
    return ErrorRates(accepted - SIMILARITY_STEP / 2, false / false[-1], (true[-1] - true) / true[-1])


def match_threshold(counts: PairCounts, rate: float) -> float:
    """The lowest cosine similarity at which no more than a share of the pairs of two classes match.

    Args:
        counts: of the images that choose the threshold, such as those for validation.
        rate: the highest rate of false matches, from 0 to 1.

    Returns:
        A threshold above all pairs if there is no other.

    Raises:
        ValueError: if the rate is out of range.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, got {rate}")
    rates = error_rates(counts)
    return float(rates.thresholds[_last_within(rates, rate)])


def _last_within(rates: ErrorRates, rate: float) -> int:
    """The lowest threshold with a false match rate within the given one."""
    return int(np.searchsorted(rates.fmr, rate, side="right")) - 1


def rates_at(counts: PairCounts, threshold: float) -> dict[str, float]:
    """`fmr` and `fnmr` in [0, 1] at a threshold, which may come from other images."""
    rates = error_rates(counts)
    num_accepted = np.searchsorted(-counts.similarities, -threshold, side="right")
    return {"fmr": float(rates.fmr[num_accepted]), "fnmr": float(rates.fnmr[num_accepted])}


def verification_metrics(counts: PairCounts, rates: Sequence[float]) -> dict[str, Any]:
    """How well the similarity of two images tells whether they are of one class.

    Args:
        counts: the pairs.
        rates: false match rates at which to state the rate of false non-matches, in (0, 1]; those at which
            fewer than 30 false matches are expected are left out.

    Returns:
        `num_matches` and `num_non_matches`, the pairs of one class and of two; `auc` in [0, 1], the
        probability that one of the former is more similar than one of the latter, ties counting half;
        `equal_error_rate`, where the line through the points of the curve has as high an FMR as FNMR;
        `fnmr_at_fmr`, a list with `fmr` as given, `threshold` and `fnmr` there; lower is better for both.

    Raises:
        ValueError: if a rate is out of range.

    Source:
        Hanley and McNeil 1982 for the area as a probability; ISO/IEC 19795-1:2021 for the rates; Doddington
        et al. 2000, The NIST speaker recognition evaluation, for the rule of 30 errors.
    """
    wrong = [rate for rate in rates if not 0 < rate <= 1]
    if wrong:
        raise ValueError(f"rates must be above 0 and at most 1, got {wrong[0]}")
    points, num_non_matches = error_rates(counts), int(counts.non_matches.sum())
    stated = [rate for rate in rates if rate * num_non_matches >= MIN_FALSE_MATCHES]
    places = [_last_within(points, rate) for rate in stated]
    return {
        "num_matches": int(counts.matches.sum()),
        "num_non_matches": num_non_matches,
        "auc": float(np.trapezoid(1 - points.fnmr, points.fmr)),
        "equal_error_rate": equal_error_rate(points),
        "fnmr_at_fmr": [
            {"fmr": rate, "threshold": float(points.thresholds[place]), "fnmr": float(points.fnmr[place])}
            for rate, place in zip(stated, places, strict=True)
        ],
    }


def equal_error_rate(rates: ErrorRates) -> float:
    """The rate at which a straight line between two points of the curve has equal errors."""
    after = int(np.argmax(rates.fmr >= rates.fnmr))
    before = after - 1
    gap_before = rates.fnmr[before] - rates.fmr[before]
    gap_after = rates.fmr[after] - rates.fnmr[after]
    share = gap_before / (gap_before + gap_after)
    return float(rates.fmr[before] + share * (rates.fmr[after] - rates.fmr[before]))


def thin_curve(rates: ErrorRates, num_points: int = NUM_POINTS) -> ErrorRates:
    """A few hundred points of a curve, on linear and logarithmic axes as even as they come; ends included.

    Args:
        rates: the whole curve.
        num_points: points along each axis, at least 2.
    """
    lowest = rates.fmr[rates.fmr > 0][0]
    wanted_fmr = np.concatenate([np.geomspace(lowest, 1, num_points), np.linspace(0, 1, num_points)])
    by_fmr = np.searchsorted(rates.fmr, wanted_fmr, side="right") - 1
    by_fnmr = np.searchsorted(-rates.fnmr, -np.linspace(0, 1, num_points))
    kept: Bool[np.ndarray, " t"] = np.zeros(len(rates.fmr), dtype=bool)
    kept[by_fmr] = kept[by_fnmr] = kept[0] = kept[-1] = True
    return ErrorRates(rates.thresholds[kept], rates.fmr[kept], rates.fnmr[kept])
