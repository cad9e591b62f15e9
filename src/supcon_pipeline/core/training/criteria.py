"""The losses that stages minimise, and their value for a collapsed encoder."""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional

from supcon_pipeline.core.losses import joint_loss, sincere_loss, supcon_loss
from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.training.state import Criterion
from supcon_pipeline.core.views.loading import Batch


def contrastive_criterion(params: ContrastiveLossParameters) -> Criterion:
    """The contrastive loss, plus the cross-entropy of the classifier head where that has a weight.

    Processes that share a batch compare all its images.
    """
    return partial(_contrastive_loss, params)


def _contrastive_loss(params: ContrastiveLossParameters, outputs: Outputs, batch: Batch) -> Tensor:
    own = outputs["projection"].unflatten(0, batch.views.shape[:2])
    projections = batch.ranks.gather(own, len(batch.labels))
    if params.name == "sincere":
        loss = sincere_loss(projections, batch.labels, params.temperature, batch.ranks)
    else:
        labels = None if params.name == "simclr" else batch.labels
        loss = supcon_loss(projections, labels, params.temperature, batch.ranks)
    if not params.classifier_weight:
        return loss
    weight = params.classifier_weight * batch.share
    return joint_loss(loss, outputs["logits"], batch.view_labels, weight, params.label_smoothing)


def classification_criterion(label_smoothing: float) -> Criterion:
    """Cross-entropy over all views of a batch; of processes that share one, the part of each adds to it.

    Source:
        Szegedy et al. 2015, arXiv:1512.00567, section 7, for the smoothing.
    """
    return partial(_cross_entropy, label_smoothing)


def _cross_entropy(label_smoothing: float, outputs: Outputs, batch: Batch) -> Tensor:
    logits = outputs["logits"].float()
    mean = functional.cross_entropy(logits, batch.view_labels, label_smoothing=label_smoothing)
    return mean * batch.share


def collapse_loss(name: str) -> Callable[[Tensor, int], float]:
    """The contrastive loss of a batch if all rows had the same projection, given its labels and views.

    All similarities are then equal, and the loss is log(rows - 1); for SINCERE, whose denominator leaves out
    the other positives, it is the mean of log(1 + negatives). Both are means over the rows that have a
    positive, and 0 where none has: with one view, an image alone in its class has none.
    """
    return partial(_collapse_loss, name)


def _collapse_loss(name: str, labels: Tensor, num_views: int) -> float:
    num_rows = len(labels) * num_views
    if labels.is_floating_point():
        # Mixed images: the value is the same however many of them have a positive.
        return math.log(max(num_rows - 1, 1))
    counts = labels.unique(return_counts=True)[1] * num_views
    counts = counts[counts > 1].double()
    if name == "simclr":
        return math.log(num_rows - 1)
    if not len(counts):
        return 0.0
    if name == "supcon":
        return math.log(num_rows - 1)
    return float((counts * (num_rows - counts).log1p()).sum() / counts.sum())
