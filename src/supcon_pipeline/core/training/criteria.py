"""The losses that stages minimise, and their value for a collapsed encoder."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from supcon_pipeline.core.losses import joint_loss, sincere_loss, supcon_loss
from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.training.state import Criterion
from supcon_pipeline.core.views.loading import Batch


def contrastive_criterion(params: ContrastiveLossParameters) -> Criterion:
    """The contrastive loss, plus the cross-entropy of the classifier head where that has a weight."""

    def criterion(outputs: Outputs, batch: Batch) -> Tensor:
        projections = outputs["projection"].unflatten(0, batch.views.shape[:2])
        if params.name == "sincere":
            loss = sincere_loss(projections, batch.labels, params.temperature)
        else:
            labels = None if params.name == "simclr" else batch.labels
            loss = supcon_loss(projections, labels, params.temperature)
        if not params.classifier_weight:
            return loss
        labels = batch.labels.repeat_interleave(batch.views.shape[1], dim=0)
        return joint_loss(loss, outputs["logits"], labels, params.classifier_weight, params.label_smoothing)

    return criterion


def classification_criterion(label_smoothing: float) -> Criterion:
    """Cross-entropy over all views of a batch.

    Source:
        Szegedy et al. 2015, arXiv:1512.00567, section 7, for the smoothing.
    """

    def criterion(outputs: Outputs, batch: Batch) -> Tensor:
        labels = batch.labels.repeat_interleave(batch.views.shape[1], dim=0)
        return functional.cross_entropy(outputs["logits"].float(), labels, label_smoothing=label_smoothing)

    return criterion


def collapse_loss(name: str) -> Callable[[Tensor, int], float]:
    """The contrastive loss of a batch if all rows had the same projection, given its labels and views.

    All similarities are then equal, and the loss is log(rows - 1); for SINCERE, whose denominator leaves out
    the other positives, it is the mean of log(1 + negatives). Both are means over the rows that have a
    positive, and 0 where none has: with one view, an image alone in its class has none.
    """

    def collapse(labels: Tensor, num_views: int) -> float:
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

    return collapse
