"""What the similarity of embeddings decides: whether two images are of one class, and one of an unknown."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from supcon_pipeline.core.data.class_splits import Search
from supcon_pipeline.core.metrics.acceptance import acceptance_threshold, nearest_similarities
from supcon_pipeline.core.metrics.intervals import mean_intervals
from supcon_pipeline.core.metrics.unseen import has_matches
from supcon_pipeline.core.metrics.verification import (
    count_pairs,
    error_rates,
    match_threshold,
    rates_at,
    thin_curve,
    verification_metrics,
)
from supcon_pipeline.core.metrics.verification_intervals import verification_intervals


def verification_report(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    validation: Int[np.ndarray, " v"],
    test: Int[np.ndarray, " t"],
    copies: Int[np.ndarray, " n"],
    false_match_rate: float,
    false_match_rates: Sequence[float],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Are two images of one class? With a threshold that validation chooses and test tries.

    Args:
        embeddings: float, one row per image.
        labels: the class of each row.
        validation: rows whose pairs choose the threshold.
        test: rows whose pairs are scored.
        copies: a number for each row, the same for images that are copies of one another and make no pair.
        false_match_rate: highest share of the validation pairs of two classes above the threshold.
        false_match_rates: at which the rate of false non-matches is stated.
        num_resamples: number of bootstrap resamples of the classes.
        seed: seed of the bootstrap.

    Returns:
        `verification_metrics` of test with 95 % `intervals` over the classes; `threshold` (cosine similarity)
        for the `false_match_rate`, with `validation` and `test` holding `fmr` and `fnmr` there; `curve` with
        `fmr` and `fnmr`. Empty where validation or test have no pair of one class or none of two.

    Raises:
        ValueError: as for `count_pairs` and `verification_metrics`.
    """
    if not all(_has_pairs(labels, rows, copies) for rows in (validation, test)):
        return {}
    chosen, scored = (count_pairs(embeddings, labels, rows, copies) for rows in (validation, test))
    threshold = match_threshold(chosen, false_match_rate)
    curve, metrics = thin_curve(error_rates(scored)), verification_metrics(scored, false_match_rates)
    stated = [point["fmr"] for point in metrics["fnmr_at_fmr"]]
    return {
        **metrics,
        "intervals": verification_intervals(
            embeddings, labels, test, scored, stated, num_resamples, seed, copies
        ),
        "threshold": threshold,
        "false_match_rate": false_match_rate,
        "validation": rates_at(chosen, threshold),
        "test": rates_at(scored, threshold),
        "curve": {"fmr": curve.fmr.tolist(), "fnmr": curve.fnmr.tolist()},
    }


def _has_pairs(
    labels: Int[np.ndarray, " n"], rows: Int[np.ndarray, " m"], copies: Int[np.ndarray, " n"]
) -> bool:
    """Whether there are two images of one class, and two of different ones."""
    has_match = bool(has_matches(labels, Search(rows, rows, copies)).any())
    # Of two classes and two images that are no copies, some pair is of both.
    return has_match and min(len(np.unique(numbers[rows])) for numbers in (labels, copies)) > 1


def unknown_report(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    validation: Int[np.ndarray, " v"],
    test: Int[np.ndarray, " t"],
    copies: Int[np.ndarray, " n"],
    false_accept_rate: float,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Is an image of a class that no other has? With a threshold that validation chooses and test tries.

    Args:
        embeddings: float, one row per image.
        labels: the class of each row.
        validation: rows of classes that training has not seen, which choose the threshold.
        test: rows of other such classes.
        copies: a number for each row, the same for images that are copies of one another and never meet.
        false_accept_rate: share of the images of unknown classes that may be taken for known ones.
        num_resamples: number of bootstrap resamples of the classes.
        seed: seed of the bootstrap.

    Returns:
        `threshold`, the cosine similarity to the nearest other image below which an image is unknown;
        `promised_false_accept_rate`, higher than asked for if validation has too few classes; on test
        `false_accept_rate` (of each image searched among other classes) and `false_reject_rate` (of each
        that has another image of its class; left out where none has), in which each class weighs the same,
        with 95 % `intervals`.
    """
    promised = lowest_rate(labels[validation], false_accept_rate)
    threshold = acceptance_threshold(embeddings, labels, validation, promised, copies=copies)
    unknown = nearest_similarities(embeddings, labels, test, test, copies, other_classes=True)
    known_rows = test[has_matches(labels, Search(test, test, copies))]
    rates = {"false_accept_rate": _class_means(unknown >= threshold, labels[test])}
    if len(known_rows):
        known = nearest_similarities(embeddings, labels, known_rows, test, copies)
        rates["false_reject_rate"] = _class_means(known < threshold, labels[known_rows])
    return {
        "threshold": threshold,
        "promised_false_accept_rate": promised,
        **{name: float(means.mean()) for name, means in rates.items()},
        "intervals": {
            name: mean_intervals({name: means}, num_resamples, seed)[name] for name, means in rates.items()
        },
    }


def _class_means(
    values: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " classes"]:
    """The mean of each class."""
    codes, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    means: np.ndarray = np.bincount(codes, values) / counts
    return means


def lowest_rate(labels: Int[np.ndarray, " n"], rate: float) -> float:
    """The rate, or the lowest that can be promised with so few classes."""
    return max(rate, 1 / (len(np.unique(labels)) + 1))
