"""Calibration: whether the confidence of a classifier matches its accuracy."""

import numpy as np
from jaxtyping import Bool, Float, Int

from supcon_pipeline.core.metrics.logits import TILE_SIZE, log_softmax, require_finite_logits, row_tiles
from supcon_pipeline.core.vectors import require_finite

# The metrics that temperature scaling changes.
CALIBRATED = ("log_loss", "expected_calibration_error")
NUM_BINS = 15
TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]) -> float:
    """The temperature, from 0.05 to 20, of the lowest log-loss, as near to 1 as its uncertainty allows.

    If every image is right, the labels alone would demand certainty, which the next mistake would refute. The
    uncertainty is the range from their temperature to that of smoothed labels, where each of `n` labels keeps
    `n / (n + 1)` and all classes share the rest; with many images or mistakes, it is negligible.

    Raises:
        InputError: if a logit is not finite.

    Source:
        Guo et al. 2017, arXiv:1706.04599, equation 9; Platt 1999, Probabilistic Outputs for Support Vector
        Machines, section 2.2, for the smoothing. That temperature alone would soften justified certainty.
    """
    require_finite_logits(logits)
    labels, smoothing = np.asarray(labels), 1 / (len(labels) + 1)
    low, high = sorted(_lowest_log_loss(logits, labels, share) for share in (0.0, smoothing))
    return float(np.clip(1, low, high))


def _lowest_log_loss(
    logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], smoothing: float
) -> float:
    """The temperature of the lowest log-loss for smoothed labels.

    The log-loss is convex in the inverse temperature, so that a line search finds its minimum.
    """
    from scipy.optimize import minimize_scalar

    tiles = row_tiles(logits, TILE_SIZE)

    def log_loss(log_temperature: float) -> float:
        total = 0.0
        for tile in tiles:
            scores = log_softmax(logits[tile], np.exp(log_temperature))
            own = np.take_along_axis(scores, labels[tile, None], axis=1)
            total -= float((1 - smoothing) * own.sum() + smoothing * scores.mean(axis=1).sum())
        return total / len(labels)

    found = minimize_scalar(log_loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))


def reliability_bins(
    confidence: Float[np.ndarray, " n"], is_right: Bool[np.ndarray, " n"]
) -> dict[str, list[float]]:
    """Mean confidence, accuracy and count of each non-empty one of 15 bins of equal width.

    Args:
        confidence: the highest probability of each image.
        is_right: whether the predicted class is the label.

    Raises:
        InputError: if a confidence is not finite.

    Source:
        Guo et al. 2017, arXiv:1706.04599, section 2: bin m holds the confidences in ((m - 1) / 15, m / 15].
    """
    require_finite("confidence", confidence)
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    count = np.bincount(bins, minlength=NUM_BINS)
    used = count > 0
    return {
        "confidence": (np.bincount(bins, confidence, NUM_BINS)[used] / count[used]).tolist(),
        "accuracy": (np.bincount(bins, is_right, NUM_BINS)[used] / count[used]).tolist(),
        "count": count[used].tolist(),
    }


def expected_calibration_error(
    confidence: Float[np.ndarray, " n"], is_right: Bool[np.ndarray, " n"]
) -> float:
    """The mean gap between confidence and accuracy over the bins, weighted by their images, in [0, 1].

    Source:
        Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    bins = {name: np.array(values) for name, values in reliability_bins(confidence, is_right).items()}
    return float(np.average(np.abs(bins["accuracy"] - bins["confidence"]), weights=bins["count"]))
