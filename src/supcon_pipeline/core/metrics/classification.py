"""Metrics of a classifier: how often it is right, and of which classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from supcon_pipeline.core.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from supcon_pipeline.core.metrics.intervals import Statistic, bootstrap_intervals, mirrored_interval
from supcon_pipeline.core.metrics.logits import TILE_SIZE, log_softmax, row_tiles


def classification_metrics(
    logits: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    validation_logits: Float[np.ndarray, "m classes"],
    validation_labels: Int[np.ndarray, " m"],
    class_names: Sequence[str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """All that is said of a classifier.

    Args:
        logits: of the images to score, up to a constant per image: log-probabilities do as well.
        labels: the class of each.
        validation_logits: of other images, for the calibration; must not be those that are scored.
        validation_labels: the class of each.
        class_names: one per class.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `accuracy`, `top_5_accuracy` (from six classes on), `balanced_accuracy` (over the classes that have
        images), `macro_f1` (over those that have images or are predicted) in [0, 1], up is better;
        `log_loss` in nats and `expected_calibration_error` in [0, 1], down is better; `reliability` as
        `reliability_bins` gives it; `calibrated` with the `temperature` and the last three after it, and
        their `intervals`; `per_class` by name with `precision`, `recall`, `f1` and `support` (images);
        `confusion_matrix` (row: label, column: predicted); `intervals` of 95 % of the first six.

    Raises:
        ValueError: where counts differ, a class has no name, or a logit is not finite.

    Source:
        Guo et al. 2017, arXiv:1706.04599, for the calibration.
    """
    _require_fit(logits, labels, class_names)
    _require_fit(validation_logits, validation_labels, class_names)
    labels = np.asarray(labels)
    temperature = fit_temperature(validation_logits, validation_labels)
    outcomes, calibrated = (image_outcomes(logits, labels, divisor) for divisor in (1.0, temperature))
    resampling = (len(labels), num_resamples, seed)
    numbers, intervals = _scores(outcomes.metrics, *resampling)
    calibrated_numbers, calibrated_intervals = _scores(calibrated.calibration, *resampling)
    return {
        **numbers,
        "calibrated": {
            "temperature": temperature,
            **calibrated_numbers,
            "reliability": reliability_bins(calibrated.confidence, calibrated.is_right),
            "intervals": calibrated_intervals,
        },
        "reliability": reliability_bins(outcomes.confidence, outcomes.is_right),
        **_class_metrics(labels, outcomes.predicted, class_names),
        "intervals": intervals,
    }


def without_tables(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and intervals of `classification_metrics`, whose size does not grow with the classes."""
    calibrated = {name: value for name, value in metrics["calibrated"].items() if name != "reliability"}
    tables = ("reliability", "per_class", "confusion_matrix")
    return {
        **{name: value for name, value in metrics.items() if name not in tables},
        "calibrated": calibrated,
    }


def _require_fit(
    logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> None:
    shape, expected = np.shape(logits), (len(labels), len(class_names))
    if shape != expected:
        raise ValueError(f"logits must be one row per label and one column per class {expected}, got {shape}")
    if not len(labels):
        raise ValueError("labels must hold at least one image, got none")
    lowest, highest = int(np.min(labels)), int(np.max(labels))
    if lowest < 0 or highest >= len(class_names):
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"labels must be from 0 to {len(class_names) - 1}, got {wrong}; name every class")
    if not all(np.isfinite(logits[tile]).all() for tile in row_tiles(logits, TILE_SIZE)):
        raise ValueError("logits must be finite, got NaN or infinity")


@dataclass(frozen=True)
class Outcomes:
    """What came of each image, from which the metrics of any choice of images follow quickly.

    Args:
        labels: the class of each.
        predicted: the likeliest class of each.
        losses: the negative log-probability of each label.
        confidence: the highest probability of each image.
        is_in_top_5: whether the label is among the five likeliest.
        num_classes: of the classifier.
    """

    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    losses: Float[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    is_in_top_5: Bool[np.ndarray, " n"]
    num_classes: int

    @property
    def is_right(self) -> Bool[np.ndarray, " n"]:
        """Whether the label is predicted."""
        is_right: np.ndarray = self.labels == self.predicted
        return is_right

    def metrics(self, rows: Int[np.ndarray, " m"]) -> dict[str, float]:
        """The headline numbers of the images at `rows`; a row that comes twice counts twice."""
        labels, predicted = self.labels[rows], self.predicted[rows]
        is_right = labels == predicted
        support = np.bincount(labels, minlength=self.num_classes)
        hits = np.bincount(labels[is_right], minlength=self.num_classes)
        said = np.bincount(predicted, minlength=self.num_classes)
        # A class without images has no recall; one that is not predicted either has no F1.
        is_present, is_seen = support > 0, support + said > 0
        numbers = {
            "accuracy": is_right.mean(),
            "top_5_accuracy": self.is_in_top_5[rows].mean(),
            "balanced_accuracy": (hits[is_present] / support[is_present]).mean(),
            "macro_f1": (2 * hits[is_seen] / (support + said)[is_seen]).mean(),
        }
        if self.num_classes < 6:
            del numbers["top_5_accuracy"]
        return {**{name: float(number) for name, number in numbers.items()}, **self.calibration(rows)}

    def calibration(self, rows: Int[np.ndarray, " m"]) -> dict[str, float]:
        """Those of the headline numbers that temperature scaling changes."""
        error = expected_calibration_error(self.confidence[rows], self.is_right[rows])
        return {"log_loss": float(self.losses[rows].mean()), "expected_calibration_error": error}


def _scores(
    statistic: Statistic, count: int, num_resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The numbers of all images, and the interval of each."""
    numbers, error = dict(statistic(np.arange(count))), "expected_calibration_error"
    intervals = bootstrap_intervals(statistic, count, num_resamples, seed)
    # A mean of absolute values: each resample adds its own chance to that of the images.
    return numbers, {**intervals, error: mirrored_interval(numbers[error], intervals[error])}


def image_outcomes(
    logits: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    temperature: float = 1.0,
    tile_size: int = TILE_SIZE,
) -> Outcomes:
    """What came of each image.

    Of equally likely classes the lower is predicted. The label comes after all others that are as likely,
    unless it is predicted, so that neither the order of the classes nor a classifier that knows few can help.

    Memory is that of a tile of images, whatever their number and that of the classes.

    Args:
        logits: one row per image.
        labels: the class of each.
        temperature: above 0, that the logits are divided by.
        tile_size: logits scored at once.
    """
    tiles = [
        _score_tile(log_softmax(logits[tile], temperature), labels[tile])
        for tile in row_tiles(logits, tile_size)
    ]
    columns = [np.concatenate(column) for column in zip(*tiles, strict=True)]
    predicted, losses, confidence, is_in_top_5 = columns
    return Outcomes(labels, predicted, losses, confidence, is_in_top_5, logits.shape[1])


def _score_tile(
    scores: Float[np.ndarray, "q classes"], labels: Int[np.ndarray, " q"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predicted class, loss, confidence and whether the label is among the first five, by log-probability."""
    own, predicted = np.take_along_axis(scores, labels[:, None], axis=1), scores.argmax(axis=1)
    # The label is as likely as itself.
    num_before = (scores >= own).sum(axis=1) - 1
    return predicted, -own[:, 0], np.exp(scores.max(axis=1)), (num_before < 5) | (predicted == labels)


def _class_metrics(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> dict[str, Any]:
    from sklearn.metrics import precision_recall_fscore_support

    classes = np.arange(len(class_names))
    columns = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0.0)
    names = ("precision", "recall", "f1", "support")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    order = np.argsort(labels, kind="stable")
    by_label = np.split(predicted[order], np.searchsorted(labels[order], classes[1:]))
    return {
        "per_class": {
            name: dict(zip(names, row, strict=True)) for name, row in zip(class_names, rows, strict=True)
        },
        # Row by row: of many classes, the whole would take more than all else.
        "confusion_matrix": [np.bincount(said, minlength=len(classes)).tolist() for said in by_label],
    }


def confused_pairs(matrix: Int[np.ndarray, "classes classes"]) -> dict[str, Any]:
    """The mistakes of a confusion matrix (row: label, column: predicted), most frequent first.

    Returns:
        Columns: `label`, `predicted` (classes), `count` (images, at least 1) and `share` (of the label's).
    """
    matrix = np.array(matrix)
    label, predicted = np.nonzero(matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype)))
    count = matrix[label, predicted]
    share = count / matrix.sum(axis=1)[label]
    order = np.lexsort((predicted, label, -share, -count))
    columns = {"label": label, "predicted": predicted, "count": count, "share": share}
    return {name: column[order] for name, column in columns.items()}


def accuracy(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> float:
    """The share of labels that are predicted.

    Raises:
        ValueError: where the counts differ.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape:
        raise ValueError(f"predicted must be one per label {labels.shape}, got {predicted.shape}")
    return float(np.mean(labels == predicted))
