"""Intervals of verification metrics over classes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.metrics.intervals import bootstrap_intervals
from supcon_pipeline.core.metrics.similarities import HALF_STEPS, SIMILARITY_STEP, TILE_SIZE, short_rows
from supcon_pipeline.core.metrics.verification import (
    ErrorRates,
    PairCounts,
    equal_error_rate,
    error_rates,
    similarity_steps,
    thin_curve,
)

# Similarities are told apart down to so many steps, 2**-16, as intervals need no more.
_COARSE_STEPS = 2**6


def verification_intervals(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " m"],
    counts: PairCounts,
    rates: Sequence[float],
    num_resamples: int,
    seed: int,
    copies: Int[np.ndarray, " n"] | None = None,
    tile_size: int = TILE_SIZE,
) -> dict[str, list[float]]:
    """95 % intervals of verification metrics, for classes that are a sample of all there could be.

    Each resample draws classes, with all their images. A pair of two classes weighs to first order what the
    product of how often either was drawn would be: their sum, less one. The curve is that of a few hundred
    thresholds. Resamples without a pair of one class, or of two, have no error rates and are left out: where
    most classes have a single image, there are many.

    Args:
        embeddings: as for `count_pairs`, like the next two.
        labels: the class of each row.
        rows: indices of the rows that are paired.
        counts: what `count_pairs` returned for them.
        rates: false match rates at which to state the rate of false non-matches.
        num_resamples: number of resamples.
        seed: seed of the draws; the same seed gives the same intervals.
        copies: as for `count_pairs`.
        tile_size: similarities held at once.

    Returns:
        `[low, high]` for `auc`, `equal_error_rate` and `fnmr_at_fmr_<rate>`.

    Raises:
        ValueError: as for `bootstrap_intervals`.

    Source:
        Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8 for drawing clusters
        whole, and section 2.7 for the first order: the influence of a class on a rate.
    """
    rows = np.asarray(rows)
    classes = np.unique(np.asarray(labels)[rows], return_inverse=True)[1]
    numbers = np.arange(len(rows)) if copies is None else np.asarray(copies)[rows]
    points = thin_curve(error_rates(counts))
    matches, non_matches = _class_curves(
        short_rows(np.asarray(embeddings)[rows]), classes, numbers, points.thresholds, tile_size
    )

    def statistic(drawn: Int[np.ndarray, " classes"]) -> dict[str, float]:
        times = np.bincount(drawn, minlength=len(matches))
        weighed = ((2 * times - 1) @ non_matches, times @ matches)
        if min(accepted[-1] for accepted in weighed) <= 0:
            return {}
        fmr, found = map(_rates, weighed)
        curve = ErrorRates(points.thresholds, fmr, 1 - found)
        return {
            "auc": float(np.trapezoid(1 - curve.fnmr, curve.fmr)),
            "equal_error_rate": equal_error_rate(curve),
            **{f"fnmr_at_fmr_{rate:g}": float(np.interp(rate, curve.fmr, curve.fnmr)) for rate in rates},
        }

    return bootstrap_intervals(statistic, len(matches), num_resamples, seed)


def _rates(accepted: Int[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """The share of weighted pairs accepted at each threshold, rising from 0 to 1."""
    shares: np.ndarray = np.maximum.accumulate(np.clip(accepted / accepted[-1], 0, 1))
    return shares


def _class_curves(
    short: Float[np.ndarray, "m dim"],
    classes: Int[np.ndarray, " m"],
    numbers: Int[np.ndarray, " m"],
    thresholds: Float[np.ndarray, " t"],
    tile_size: int,
) -> Int[np.ndarray, "2 classes t"]:
    """How many pairs of each class with itself, and with others, are accepted at each threshold."""
    num_thresholds = len(thresholds)
    coarse = (np.rint(thresholds / SIMILARITY_STEP + 0.5).astype(np.int64) + HALF_STEPS) // _COARSE_STEPS
    # Thresholds fall; the first accepts no pair, and the last all.
    first_accepting = np.searchsorted(-coarse, -np.arange(2 * HALF_STEPS // _COARSE_STEPS))
    first_accepting = np.clip(first_accepting, 1, num_thresholds - 1)
    curves = np.zeros((2, classes.max() + 1, num_thresholds), dtype=np.int64)
    num_rows = max(1, tile_size // len(short))
    for start in range(0, len(short), num_rows):
        tile = slice(start, start + num_rows)
        places = first_accepting[similarity_steps(short[tile], short) // _COARSE_STEPS]
        places += np.arange(len(places))[:, None] * num_thresholds
        is_pair = numbers[tile, None] != numbers
        is_match = classes[tile, None] == classes
        for curve, is_kind in zip(curves, (is_pair & is_match, is_pair & ~is_match), strict=True):
            found = np.bincount(places[is_kind], minlength=places.shape[0] * num_thresholds)
            np.add.at(curve, classes[tile], found.reshape(-1, num_thresholds))
    return curves.cumsum(axis=2)
