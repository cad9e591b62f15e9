from itertools import combinations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve
from tests.core.metrics.angles import at_degrees

from supcon_pipeline.core.metrics.verification import (
    PairCounts,
    count_pairs,
    error_rates,
    match_threshold,
    rates_at,
    thin_curve,
    verification_metrics,
)

STEP = 2.0**-22


def pairs_by_loop(embeddings, labels, rows, copies=None):
    """The similarity of each pair and whether it is of one class."""
    pairs = []
    for one, other in combinations(rows, 2):
        if copies is None or copies[one] != copies[other]:
            lengths = np.linalg.norm(embeddings[one]) * np.linalg.norm(embeddings[other])
            cosine = round(embeddings[one] @ embeddings[other] / lengths, 10)
            pairs.append((cosine, labels[one] == labels[other]))
    return tuple(np.array(column) for column in zip(*pairs, strict=True))


@pytest.mark.parametrize("tile_size", [1, 1000])
def test_the_curve_over_all_pairs_is_that_of_scikit_learn_ties_included(many, tile_size):
    rows = np.arange(80)
    cosines, is_match = pairs_by_loop(*many, rows)
    fmr, tmr, thresholds = roc_curve(is_match, cosines, drop_intermediate=False)
    counts = count_pairs(*many, rows, tile_size=tile_size)
    rates = error_rates(counts)
    assert np.array_equal(rates.fmr, fmr)
    assert rates.fnmr == pytest.approx(1 - tmr, abs=1e-15)
    assert rates.thresholds[1:] == pytest.approx(thresholds[1:], abs=2 * STEP)
    metrics = verification_metrics(counts, ())
    assert metrics["auc"] == pytest.approx(roc_auc_score(is_match, cosines), abs=1e-14)
    assert (metrics["num_matches"], metrics["num_non_matches"]) == (is_match.sum(), (~is_match).sum())
    equal = brentq(lambda rate: 1 - rate - interp1d(fmr, tmr)(rate), 0, 1)
    assert metrics["equal_error_rate"] == pytest.approx(equal, abs=1e-9)


def test_copies_make_no_pair_and_only_the_given_rows_do(many, rng):
    copies, rows = rng.integers(0, 20, 80), rng.permutation(80)[:50]
    cosines, is_match = pairs_by_loop(*many, rows, copies)
    counts = count_pairs(*many, rows, copies, tile_size=130)
    values, places = np.unique(-cosines, return_inverse=True)
    assert counts.similarities == pytest.approx(-values, abs=STEP)
    assert np.array_equal(counts.matches, np.bincount(places, is_match))
    assert np.array_equal(counts.non_matches, np.bincount(places, ~is_match))


def test_errors_of_three_images_are_as_by_hand():
    # A pair of one class at 30 degrees; two of two classes, at 10 and 40 degrees.
    counts = count_pairs(at_degrees(0, 30, 40), [0, 0, 1], range(3))
    cosines = np.cos(np.deg2rad([10, 30, 40]))
    assert counts.similarities == pytest.approx(cosines, abs=STEP)
    rates = error_rates(counts)
    assert rates.fmr.tolist() == [0, 0.5, 0.5, 1]
    assert rates.fnmr.tolist() == [1, 1, 0, 0]
    metrics = verification_metrics(counts, ())
    assert (metrics["auc"], metrics["equal_error_rate"]) == (0.5, 0.5)
    assert match_threshold(counts, 0.5) == pytest.approx(cosines[1], abs=STEP)
    assert match_threshold(counts, 0.49) > cosines[0]
    assert match_threshold(counts, 1.0) < cosines[2]


def test_separated_classes_are_told_apart_without_error():
    labels = np.repeat([0, 1, 2], 6)
    counts = count_pairs(at_degrees(*(labels * 120 + np.arange(18) / 10)), labels, range(18))
    metrics = verification_metrics(counts, (1.0,))
    assert (metrics["auc"], metrics["equal_error_rate"]) == (1, 0)
    assert rates_at(counts, match_threshold(counts, 0.0)) == {"fmr": 0, "fnmr": 0}


@pytest.mark.parametrize("num_rows", [23, 151])
def test_a_collapsed_encoder_tells_nothing(rng, num_rows):
    row = rng.normal(size=100).astype(np.float32)
    counts = count_pairs(np.tile(row, (num_rows, 1)), np.arange(num_rows) % 3, range(num_rows), tile_size=300)
    metrics = verification_metrics(counts, (0.1,))
    assert len(counts.similarities) == 1
    assert (metrics["auc"], metrics["equal_error_rate"]) == (0.5, 0.5)
    assert all(entry["fnmr"] == 1 for entry in metrics["fnmr_at_fmr"])


def test_false_non_matches_at_a_rate_are_those_above_the_lowest_threshold_within_it(many):
    cosines, is_match = pairs_by_loop(*many, range(80))
    counts = count_pairs(*many, range(80))
    stated = verification_metrics(counts, (0.3, 0.1, 0.02))["fnmr_at_fmr"]
    for entry in stated:
        within = [t for t in cosines if np.mean(cosines[~is_match] >= t) <= entry["fmr"]]
        assert entry["fnmr"] == np.mean(cosines[is_match] < min(within))
        assert entry["threshold"] == match_threshold(counts, entry["fmr"]) < min(within)
    assert [entry["fmr"] for entry in stated] == [0.3, 0.1, 0.02]


def test_a_rate_at_which_there_are_too_few_false_matches_is_left_out():
    counts = PairCounts(np.array([0.5, 0.25]), np.array([3, 1]), np.array([100, 2900]))
    assert [e["fmr"] for e in verification_metrics(counts, (0.1, 0.01, 0.0099))["fnmr_at_fmr"]] == [0.1, 0.01]


def test_a_threshold_of_one_set_gives_the_rates_of_another(many, rng):
    validation, test = np.split(rng.permutation(80), 2)
    threshold = match_threshold(count_pairs(*many, validation), 0.1)
    cosines, is_match = pairs_by_loop(*many, test)
    rates = rates_at(count_pairs(*many, test), threshold)
    assert rates["fmr"] == np.mean(cosines[~is_match] >= threshold)
    assert rates["fnmr"] == np.mean(cosines[is_match] < threshold)


def test_a_thinned_curve_has_its_ends_and_points_of_the_whole(rng):
    counts = PairCounts(
        np.linspace(1, -1, 5000), rng.integers(0, 9, 5000), rng.integers(0, 9, 5000) * np.arange(5000)
    )
    whole, thin = error_rates(counts), thin_curve(error_rates(counts), 50)
    assert 100 < len(thin.fmr) <= 152
    places = np.searchsorted(-whole.thresholds, -thin.thresholds)
    for name in ("thresholds", "fmr", "fnmr"):
        column, points = getattr(whole, name), getattr(thin, name)
        assert np.array_equal(column[places], points)
        assert (points[0], points[-1]) == (column[0], column[-1])
    assert np.diff(thin.fmr).max() < 0.03
    assert np.diff(-thin.fnmr).max() < 0.03


def test_pairs_that_cannot_be_judged_are_refused(many):
    embeddings, labels = many
    with pytest.raises(ValueError, match="rows must make a pair of images of one class, got none"):
        count_pairs(embeddings, np.arange(80), range(80))
    with pytest.raises(ValueError, match="rows must make a pair of images of two classes, got none"):
        count_pairs(embeddings, np.zeros(80), range(80))
    with pytest.raises(ValueError, match="rows must be from 0 to 79, got -1 to 4"):
        count_pairs(embeddings, labels, [-1, 4])
    with pytest.raises(ValueError, match=r"copies must have one number per row \(80\), got 79"):
        count_pairs(embeddings, labels, range(80), np.arange(79))
    counts = count_pairs(embeddings, labels, range(80))
    with pytest.raises(ValueError, match="rates must be above 0 and at most 1, got 0"):
        verification_metrics(counts, (0.1, 0))
    with pytest.raises(ValueError, match=r"rate must be from 0 to 1, got 1\.5"):
        match_threshold(counts, 1.5)
