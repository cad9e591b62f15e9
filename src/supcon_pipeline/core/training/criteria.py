"""The losses that stages minimise, and their value for a collapsed encoder."""

import logging
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.losses import (
    joint_loss,
    proxy_anchor_loss,
    sincere_loss,
    supcon_loss,
    supcon_memory_loss,
)
from supcon_pipeline.core.losses.inputs import anchor_classes, at_least_float32, class_sizes
from supcon_pipeline.core.losses.supcon import class_weights
from supcon_pipeline.core.models.encoder import Outputs
from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.parameters.stages import Stage1Parameters
from supcon_pipeline.core.training.memory import ProjectionMemory
from supcon_pipeline.core.training.state import Criterion
from supcon_pipeline.core.views.loading import Batch

logger = logging.getLogger(__name__)


def contrastive_criterion(
    params: ContrastiveLossParameters,
    logit_offsets: Float[Tensor, " classes"] | None = None,
    memory: ProjectionMemory | None = None,
) -> Criterion:
    """The contrastive loss, plus the cross-entropy of the classifier head where that has a weight.

    Processes that share a batch compare all its images.

    Args:
        params: of the loss.
        logit_offsets: added to the logits of the classifier head, for the loss alone.
        memory: where it is used, the projections of a batch are compared with it, and then added to it.
    """
    return partial(_contrastive_loss, params, memory, logit_offsets)


def _contrastive_loss(
    params: ContrastiveLossParameters,
    memory: ProjectionMemory | None,
    logit_offsets: Tensor | None,
    outputs: Outputs,
    batch: Batch,
) -> Tensor:
    own = outputs["similarities" if params.name == "proxy_anchor" else "projection"]
    rows = batch.ranks.gather(own.unflatten(0, batch.views.shape[:2]), len(batch.labels))
    if memory is not None and memory.is_used:
        loss = _loss_with_memory(memory, rows, batch, params.temperature)
    elif params.name == "proxy_anchor":
        classes = batch.labels.repeat_interleave(rows.shape[1])
        loss = proxy_anchor_loss(rows.flatten(0, 1), classes, params.temperature, ranks=batch.ranks)
    elif params.name == "sincere":
        loss = sincere_loss(rows, batch.labels, params.temperature, batch.ranks)
    else:
        labels = None if params.name == "simclr" else batch.labels
        loss = supcon_loss(rows, labels, params.temperature, batch.ranks, params.class_averaged)
    if not params.classifier_weight:
        return loss
    weight, smoothing = params.classifier_weight * batch.share, params.label_smoothing
    if logit_offsets is None:
        return joint_loss(loss, outputs["logits"], batch.view_labels, weight, smoothing)
    logits, labels = _adjusted(outputs["logits"], batch.view_labels, smoothing, logit_offsets)
    return joint_loss(loss, logits, labels, weight)


def _loss_with_memory(
    memory: ProjectionMemory, projections: Tensor, batch: Batch, temperature: float
) -> Tensor:
    if len(memory):
        known = memory.projections.to(projections.device), memory.labels.to(projections.device)
        loss = supcon_memory_loss(projections, batch.labels, *known, temperature, batch.ranks)
    else:
        loss = supcon_loss(projections, batch.labels, temperature, batch.ranks)
    memory.add(projections.flatten(0, 1), batch.labels.repeat_interleave(projections.shape[1]))
    return loss


def classification_criterion(
    label_smoothing: float, logit_offsets: Float[Tensor, " classes"] | None = None
) -> Criterion:
    """Cross-entropy over all views of a batch; of processes that share one, the part of each adds to it.

    Args:
        label_smoothing: from 0 to 1.
        logit_offsets: added to the logits, for the loss alone; classes then have their shares in what
            smoothing spreads, and equal ones otherwise.

    Source:
        Szegedy et al. 2015, arXiv:1512.00567, section 7, for the smoothing.
    """
    return partial(_cross_entropy, label_smoothing, logit_offsets)


def _cross_entropy(
    label_smoothing: float, logit_offsets: Tensor | None, outputs: Outputs, batch: Batch
) -> Tensor:
    logits, labels = outputs["logits"].float(), batch.view_labels
    if logit_offsets is not None:
        logits, labels = _adjusted(logits, labels, label_smoothing, logit_offsets)
        label_smoothing = 0.0
    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing) * batch.share


def _adjusted(
    logits: Float[Tensor, "n classes"], labels: Tensor, label_smoothing: float, offsets: Tensor
) -> tuple[Float[Tensor, "n classes"], Tensor]:
    """Logits with their offsets, and labels whose smoothed part is shared as the offsets share it.

    An equal share would ask more of a rare class than its offset allows, and its logit would make up for it:
    without the offsets, it would then be the largest even for images of a frequent class.
    """
    offsets = offsets.to(logits.device, non_blocking=True)
    if label_smoothing:
        known = labels if labels.is_floating_point() else functional.one_hot(labels, len(offsets))
        labels = (1 - label_smoothing) * known + label_smoothing * offsets.softmax(dim=0)
    return at_least_float32(logits) + offsets, labels


def adjustment_offsets(
    data: LabelledImages, strength: float, sampler: str, parameter: str
) -> Float[Tensor, " classes"] | None:
    """What logit adjustment adds to logits in training: its strength times the log of each class's share.

    The model learns the rest, without what the sizes of classes alone say, and its own logits favour no class
    for being frequent. A class without training images counts as one of the smallest, so that the loss of
    smoothed labels is finite. Classes of equal size get equal offsets, which change no cross-entropy.

    Args:
        data: with the images to train on.
        strength: at least 0; 1 is that of the source for equal errors on all classes.
        sampler: how batches are drawn; `class_balanced` ones have nothing to adjust, which is said.
        parameter: the name of the strength, for messages.

    Returns:
        None where there is nothing to add.

    Source:
        Menon et al. 2020, arXiv:2007.07314, the logit-adjusted softmax cross-entropy.
    """
    if not strength:
        return None
    if sampler == "class_balanced":
        logger.warning(
            "%s changes nothing, as class-balanced batches hold all classes equally often; leave it out with "
            "--params %s=0",
            *(parameter, parameter),
        )
        return None
    counts = np.bincount(data.labels[data.indices("train")], minlength=data.num_classes)
    known = np.maximum(counts, counts[counts > 0].min())
    return strength * torch.from_numpy(known / known.sum()).log().float()


def collapse_loss(
    name: str, is_class_averaged: bool = False, memory: ProjectionMemory | None = None
) -> Callable[[Tensor, int], float]:
    """The contrastive loss of a batch if all rows had the same projection, given its labels and views.

    All similarities are then equal, and the loss is log(rows - 1); for SINCERE, whose denominator leaves out
    the other positives, it is the mean of log(1 + negatives), and with class averages the mean of log(rows -
    weight of the row). All are means over the rows that have a positive, and 0 where none has: with one view,
    an image alone in its class has none. With a memory, its projections count as rows.
    """
    if memory is not None:
        return partial(_remembered_collapse_loss, memory)
    return _averaged_collapse_loss if is_class_averaged else partial(_collapse_loss, name)


def _remembered_collapse_loss(memory: ProjectionMemory, labels: Tensor, num_views: int) -> float:
    if not (memory.is_used and len(memory)):
        return _collapse_loss("supcon", labels, num_views)
    return math.log(len(labels) * num_views - 1 + len(memory))


def _averaged_collapse_loss(labels: Tensor, num_views: int) -> float:
    """Mixed images have a positive each, or nearly so."""
    weights = class_weights(labels, torch.empty(len(labels), 0, 0, dtype=torch.float64))
    num_positives = torch.ones_like(weights)
    if not labels.is_floating_point():
        num_positives = class_sizes(anchor_classes(labels, labels)) * num_views - 1
    losses = (num_views * weights.sum() - weights)[num_positives > 0].log()
    return float(losses.mean()) if len(losses) else 0.0


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


def collapse_room(data: LabelledImages, params: Stage1Parameters) -> float:
    """How far the loss can fall below that of a collapsed encoder, at most; infinite where that is far.

    An image's loss cannot be less than the log of the number of its positives. Where nearly all images are of
    one class, that is little less than the log of the number of all other rows. So it is of shuffled batches
    and the plain loss alone: SimCLR, SINCERE and class averages do not ask for the size of a class.
    """
    loss, loader = params.loss, params.loader
    if loss.name != "supcon" or loss.class_averaged or loader.sampler == "class_balanced":
        return math.inf
    counts = np.bincount(data.labels[data.indices("train")])
    shares = counts[counts > 0] / counts.sum()
    # Of a batch that has the shares of the classes; of a class that it has at all, there is an image.
    rows = params.num_views * np.maximum(loader.batch_size * shares, 1)
    shares, rows = shares[rows > 1], rows[rows > 1]
    falls = math.log(params.num_views * loader.batch_size - 1) - np.log(np.maximum(rows - 1, 1))
    return max(float(shares @ falls / shares.sum()), 0.0) if len(shares) else 0.0
