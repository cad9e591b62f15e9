"""How well a score tells images of another kind from those that a model was made for."""

import numpy as np
from jaxtyping import Float


def detection_metrics(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> dict[str, float]:
    """How well a score separates images from outside the classes, up meaning outside.

    Args:
        inside: scores of images of the known classes.
        outside: scores of images of none of them.

    Returns:
        `auroc`, the probability that one from outside scores above one from inside, ties counting half: 0.5
        is chance, 1 perfect. `fpr_at_95_tpr` in [0, 1], the share of images from outside that pass at the
        threshold which lets 95 % of those from inside pass; down is better.

    Raises:
        ValueError: where there is none of either.

    Source:
        Hendrycks and Gimpel 2017, arXiv:1610.02136, section 2 for AUROC; Liang et al. 2018, arXiv:1706.02690,
        section 4.2, for the rate at 95 %, with images from inside as the positives.
    """
    from sklearn.metrics import roc_auc_score

    if not len(inside) or not len(outside):
        raise ValueError(f"scores must be of both kinds, got {len(inside)} inside, {len(outside)} outside")
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    threshold = np.quantile(inside, 0.95, method="inverted_cdf")
    return {
        "auroc": float(roc_auc_score(is_outside, np.concatenate([inside, outside]))),
        "fpr_at_95_tpr": float(np.mean(outside <= threshold)),
    }
