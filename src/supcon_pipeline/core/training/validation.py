"""The validation metrics that choose the checkpoints of a stage."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.data.subsets import limit_rows
from supcon_pipeline.core.metrics.classification import accuracy
from supcon_pipeline.core.metrics.features import embedding_metrics
from supcon_pipeline.core.metrics.unseen import unseen_metrics
from supcon_pipeline.core.models.embed import embed_images
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.training.state import Metrics, Validation

_FEATURES = ("embedding", "projection")


def validate_features(
    data: LabelledImages, batch_size: int, max_queries: int | None = None, seed: int = 0
) -> Validation:
    """Retrieval metrics of embedding and projection: validation images against training images.

    Each image passes through the network once. Keys are `embedding.<metric>` and `projection.<metric>`.

    Args:
        data: `validation` and, unless it lacks their classes, `train`.
        batch_size: images per forward pass.
        max_queries: of more validation images, so many are searched for, each class in proportion; all if
            not given.
        seed: draws them.
    """
    queries = _queries(data, max_queries, seed)
    if data.has_unseen_classes:
        return partial(_metrics_of_unseen, data, batch_size, queries)
    return partial(_metrics_of_features, data, batch_size, queries)


def _queries(data: LabelledImages, max_queries: int | None, seed: int) -> Int[np.ndarray, " q"]:
    """The validation images that are searched for in every validation of a training."""
    rows, what = data.indices("validation"), "validation images are searched for"
    if max_queries is None:
        return rows
    return limit_rows(rows, data.labels[rows], max_queries, seed, what, "stage1.max_validation_queries")


def _metrics_of_features(
    data: LabelledImages,
    batch_size: int,
    validation: Int[np.ndarray, " q"],
    model: nn.Module,
    ranks: Ranks = ALONE,
) -> Metrics:
    train = data.indices("train")
    chosen = np.concatenate([validation, train])
    outputs = embed_images(model, data.images, chosen, batch_size, ranks, _FEATURES)
    if not ranks.is_first:
        return {}
    metrics = {}
    for name in _FEATURES:
        queries, references = np.split(outputs[name].numpy(), [len(validation)])
        scores = embedding_metrics(queries, data.labels[validation], references, data.labels[train])
        metrics.update({f"{name}.{metric}": value for metric, value in scores.items()})
    return metrics


def _metrics_of_unseen(
    data: LabelledImages,
    batch_size: int,
    queries: Int[np.ndarray, " q"],
    model: nn.Module,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Retrieval metrics of what a model gives besides logits: validation images against one another."""
    validation = data.indices("validation")
    labels, places = data.labels[validation], np.searchsorted(validation, queries)
    copies = np.arange(len(labels)) if data.copies is None else data.copies[validation]
    outputs = embed_images(model, data.images, validation, batch_size, ranks, _FEATURES)
    if not ranks.is_first:
        return {}
    metrics = {}
    for name in sorted(outputs):
        scores = unseen_metrics(outputs[name].numpy(), labels, copies, places)
        metrics.update({f"{name}.{metric}": value for metric, value in scores.items()})
    return metrics


def validate_classifier(
    data: LabelledImages,
    batch_size: int,
    max_queries: int | None = None,
    seed: int = 0,
    logit_offsets: Float[Tensor, " classes"] | None = None,
) -> Validation:
    """Accuracy and log-loss on the validation images; of classes that train lacks, as `validate_features`.

    Accuracy is that of the logits. The log-loss is that of logits with their offsets, as in training: these
    are what was fitted to classes as frequent as they are here.
    """
    if data.has_unseen_classes:
        return partial(_metrics_of_unseen, data, batch_size, _queries(data, max_queries, seed))
    return partial(_metrics_of_classifier, data, batch_size, logit_offsets)


def _metrics_of_classifier(
    data: LabelledImages,
    batch_size: int,
    logit_offsets: Tensor | None,
    model: nn.Module,
    ranks: Ranks = ALONE,
) -> Metrics:
    validation = data.indices("validation")
    labels = torch.from_numpy(data.labels[validation].astype(np.int64))
    logits = embed_images(model, data.images, validation, batch_size, ranks, ("logits",))["logits"]
    if not ranks.is_first:
        return {}
    log_loss = functional.cross_entropy(logits if logit_offsets is None else logits + logit_offsets, labels)
    predicted = logits.argmax(dim=1).numpy()
    return {"accuracy": accuracy(data.labels[validation], predicted), "log_loss": float(log_loss)}
