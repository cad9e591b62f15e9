"""Metrics of a classifier: overall, per class, and of its calibration."""

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
from supcon_pipeline.core.metrics.logits import TILE_SIZE, log_softmax, require_finite_logits, row_tiles


def classification_metrics(
    logits: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    validation_logits: Float[np.ndarray, "m classes"],
    validation_labels: Int[np.ndarray, " m"],
    class_names: Sequence[str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """All metrics of a classifier.

    Args:
        logits: of the images to score, up to a constant per image; log-probabilities work as well.
        labels: the class of each.
        validation_logits: of other images, for calibration; must not include those that are scored.
        validation_labels: the class of each.
        class_names: one per class.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        `accuracy`, `top_5_accuracy` (with six classes or more), `balanced_accuracy` (over classes with
        images), `macro_f1` (over classes with images or predictions) in [0, 1], higher is better; `log_loss`
        in nats and `expected_calibration_error` in [0, 1], lower is better; `reliability` from
        `reliability_bins`; `calibrated` with the `temperature`, the last three after scaling by it, and their
        `intervals`; `per_class` by name with `precision`, `recall`, `f1` and `support` (images);
        `confusion_matrix` with the columns `label`, `predicted` and `count` of its cells above 0, which
        `unpack_confusion` puts together; 95 % `intervals` of the first six. A resample that lacks a class is
        scored over the others, which makes the intervals as wide as a class of few images is uncertain.

    Raises:
        ValueError: if counts differ or a class has no name.
        InputError: if a logit is not finite.

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
    """The numbers and intervals of metrics, in all their groups, without tables and curves."""
    return {
        name: without_tables(value) if isinstance(value, Mapping) else value
        for name, value in metrics.items()
        if name not in ("reliability", "per_class", "confusion_matrix", "curve")
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


@dataclass(frozen=True)
class Outcomes:
    """The outcome for each image, from which metrics of any subset are computed quickly.

    Args:
        labels: the class of each image.
        predicted: the likeliest class of each image.
        losses: the negative log-probability of each label.
        confidence: the highest probability of each image.
        is_in_top_5: whether the label is among the five likeliest.
        num_classes: classes of the classifier.
    """

    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    losses: Float[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    is_in_top_5: Bool[np.ndarray, " n"]
    num_classes: int

    @property
    def is_right(self) -> Bool[np.ndarray, " n"]:
        """Whether the predicted class is the label."""
        is_right: np.ndarray = self.labels == self.predicted
        return is_right

    def metrics(self, rows: Int[np.ndarray, " m"]) -> dict[str, float]:
        """The headline metrics of the images at `rows`; a repeated row counts each time."""
        labels, predicted = self.labels[rows], self.predicted[rows]
        is_right = labels == predicted
        support = np.bincount(labels, minlength=self.num_classes)
        hits = np.bincount(labels[is_right], minlength=self.num_classes)
        num_predicted = np.bincount(predicted, minlength=self.num_classes)
        # A class without images has no recall; without predictions, it has no F1 either.
        is_present, is_seen = support > 0, support + num_predicted > 0
        numbers = {
            "accuracy": is_right.mean(),
            "top_5_accuracy": self.is_in_top_5[rows].mean(),
            "balanced_accuracy": (hits[is_present] / support[is_present]).mean(),
            "macro_f1": (2 * hits[is_seen] / (support + num_predicted)[is_seen]).mean(),
        }
        if self.num_classes < 6:
            del numbers["top_5_accuracy"]
        return {**{name: float(number) for name, number in numbers.items()}, **self.calibration(rows)}

    def calibration(self, rows: Int[np.ndarray, " m"]) -> dict[str, float]:
        """The headline metrics that temperature scaling changes."""
        error = expected_calibration_error(self.confidence[rows], self.is_right[rows])
        return {"log_loss": float(self.losses[rows].mean()), "expected_calibration_error": error}


def _scores(
    statistic: Statistic, count: int, num_resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics of all images, and the interval of each."""
    numbers, error = dict(statistic(np.arange(count))), "expected_calibration_error"
    intervals = bootstrap_intervals(statistic, count, num_resamples, seed)
    # A mean of absolute values: each resample adds its own noise to that of the images.
    return numbers, {**intervals, error: mirrored_interval(numbers[error], intervals[error])}


def image_outcomes(
    logits: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    temperature: float = 1.0,
    tile_size: int = TILE_SIZE,
) -> Outcomes:
    """The outcome for each image.

    Of equally likely classes, the lowest is predicted. Unless it is predicted, the label ranks behind all
    that are as likely, so that neither the class order nor a classifier that knows few classes gains by ties.

    Memory is bounded by a tile of images, whatever the number of images and classes.

    Args:
        logits: one row per image.
        labels: the class of each.
        temperature: divides the logits, above 0.
        tile_size: logits scored at once.

    Raises:
        InputError: if a logit is not finite.
    """
    require_finite_logits(logits)
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
    # Minus the label, which is as likely as itself.
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
    # At most a cell per image: as rows and columns, 2,000 classes would be four million numbers.
    cells, count = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    return {
        "per_class": {
            name: dict(zip(names, row, strict=True)) for name, row in zip(class_names, rows, strict=True)
        },
        "confusion_matrix": {
            "label": cells[0].tolist(),
            "predicted": cells[1].tolist(),
            "count": count.tolist(),
        },
    }


def unpack_confusion(cells: Mapping[str, Sequence[int]], num_classes: int) -> Any:
    """The sparse matrix (row: label, column: predicted) of the `confusion_matrix` of the metrics.

    Example:
        >>> unpack_confusion({"label": [0, 1], "predicted": [1, 1], "count": [2, 5]}, 2).toarray()
        array([[0, 2],
               [0, 5]])
    """
    from scipy.sparse import coo_array

    places = np.array([cells["label"], cells["predicted"]], dtype=np.int64)
    return coo_array((np.array(cells["count"], dtype=np.int64), places), (num_classes, num_classes))


def confused_pairs(matrix: Any) -> dict[str, Any]:
    """The mistakes of a confusion matrix (row: label, column: predicted), most frequent first.

    Args:
        matrix: square, an array of numpy or of scipy.sparse.

    Returns:
        Columns: `label`, `predicted` (classes), `count` (at least 1) and `share` (of the label's images).
    """
    from scipy.sparse import coo_array

    sparse = coo_array(matrix)
    is_mistake = (sparse.row != sparse.col) & (sparse.data > 0)
    label, predicted, count = (part[is_mistake] for part in (sparse.row, sparse.col, sparse.data))
    share = count / np.asarray(sparse.sum(axis=1))[label]
    order = np.lexsort((predicted, label, -share, -count))
    columns = {"label": label, "predicted": predicted, "count": count, "share": share}
    return {name: column[order] for name, column in columns.items()}


def accuracy(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> float:
    """The share of predictions that are right.

    Raises:
        ValueError: if the counts differ.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape:
        raise ValueError(f"predicted must be one per label {labels.shape}, got {predicted.shape}")
    return float(np.mean(labels == predicted))
