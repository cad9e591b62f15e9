"""Out-of-distribution detection: how well a score separates images of other classes."""

import numpy as np
from jaxtyping import Float

from supcon_pipeline.core.vectors import require_finite


def detection_metrics(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> dict[str, float]:
    """How well a score separates images outside the known classes, where higher means outside.

    Args:
        inside: scores of images of the known classes.
        outside: scores of images of none of them.

    Returns:
        `auroc`, the probability that an image from outside scores above one from inside, ties counting half:
        0.5 is chance, 1 is perfect. `fpr_at_95_tpr` in [0, 1], the share of images from outside that pass the
        threshold that 95 % of those from inside pass; lower is better.

    Raises:
        ValueError: if either is empty.
        InputError: if a score is not finite.

    Source:
        Hendrycks and Gimpel 2017, arXiv:1610.02136, section 2 for AUROC; Liang et al. 2018, arXiv:1706.02690,
        section 4.2, for the rate at 95 %, with images from inside as the positives.
    """
    from sklearn.metrics import roc_auc_score

    if not len(inside) or not len(outside):
        raise ValueError(f"scores must be of both kinds, got {len(inside)} inside, {len(outside)} outside")
    require_finite("scores inside", inside)
    require_finite("scores outside", outside)
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    threshold = np.quantile(inside, 0.95, method="inverted_cdf")
    return {
        "auroc": float(roc_auc_score(is_outside, np.concatenate([inside, outside]))),
        "fpr_at_95_tpr": float(np.mean(outside <= threshold)),
    }
