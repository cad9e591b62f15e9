"""The two stages of training, put together from their parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.averaging import average_states, build_ema, has_batch_norm, reestimate_batch_norm
from supcon_pipeline.core.batches import build_loader
from supcon_pipeline.core.embed import embed_images, iterate_images, predict_logits
from supcon_pipeline.core.encoder import LinearProbe, build_model
from supcon_pipeline.core.metrics import accuracy, embedding_metrics
from supcon_pipeline.core.monitoring import LOWER_IS_BETTER, Monitor, ScalarLog, TopCheckpoints
from supcon_pipeline.core.optim import build_optimizer, build_schedule
from supcon_pipeline.core.parameters import Stage1Parameters, Stage2Parameters
from supcon_pipeline.core.tensors import NamedTensors, fingerprint, restore_model
from supcon_pipeline.core.training import (
    LossFunction,
    Metrics,
    classification_loss,
    contrastive_loss,
    fit,
    pick_device,
)
from supcon_pipeline.core.views import ViewPolicy

History = list[dict[str, Any]]


@dataclass(frozen=True)
class LabelledSplits:
    """Packed images with the label and the split of each.

    Args:
        images: uint8, may be memory-mapped.
        labels: class indices.
        splits: `train`, `validation` or `test`.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    splits: np.ndarray

    def indices(self, split: str) -> Int[np.ndarray, " m"]:
        """Where the images of a split are, ascending.

        Raises:
            ValueError: where the split has no image.
        """
        found = np.flatnonzero(np.asarray(self.splits) == split)
        if not len(found):
            raise ValueError(f"split must be one of {', '.join(sorted(set(self.splits)))}, got {split!r}")
        return found


def validate_features(data: LabelledSplits, batch_size: int) -> Callable[[nn.Module], Metrics]:
    """Metrics of both features on the validation images, searched among the training images.

    Each image passes the network once. The keys are `embedding.<metric>` and `projection.<metric>`.
    """
    train, validation = data.indices("train"), data.indices("validation")

    def validate(model: nn.Module) -> Metrics:
        features = embed_images(model, data.images, np.concatenate([validation, train]), batch_size)
        metrics = {}
        for name, rows in features._asdict().items():
            queries, references = np.split(rows.numpy(), [len(validation)])
            scores = embedding_metrics(queries, data.labels[validation], references, data.labels[train])
            metrics.update({f"{name}.{metric}": value for metric, value in scores.items()})
        return metrics

    return validate


def validate_classifier(data: LabelledSplits, batch_size: int) -> Callable[[nn.Module], Metrics]:
    """Accuracy and log-loss on the validation images."""
    validation = data.indices("validation")
    labels = torch.from_numpy(data.labels[validation])

    def validate(model: nn.Module) -> Metrics:
        logits = predict_logits(model, data.images, validation, batch_size)
        predicted = logits.argmax(dim=1).numpy()
        log_loss = functional.cross_entropy(logits, labels)
        return {"accuracy": accuracy(data.labels[validation], predicted), "log_loss": float(log_loss)}

    return validate


def pretrain(
    data: LabelledSplits,
    mean: Sequence[float],
    std: Sequence[float],
    params: Stage1Parameters,
    log: ScalarLog,
    origin: Mapping[str, str],
) -> tuple[list[NamedTensors], History]:
    """Stage 1: the best checkpoints of a contrastive model, best first, and the history by epoch.

    Args:
        data: trained on `train`, chosen by `validation`.
        mean: of each channel, for the encoder's normalisation.
        std: of each channel.
        params: of the stage.
        log: where scalars go.
        origin: what the checkpoints say of where they come from: `run_id` and `data_hash`.
    """
    torch.manual_seed(params.seed)
    description = {
        "kind": "contrastive",
        "backbone": params.backbone.name,
        "stem": params.backbone.stem,
        "mean": list(mean),
        "std": list(std),
        **params.projection.model_dump(),
    }
    return _train(
        "stage 1",
        build_model(description),
        contrastive_loss(params.loss.temperature),
        data,
        params,
        num_views=params.num_views,
        validate=validate_features(data, params.validation_batch_size),
        ema_decay_per_epoch=params.ema.decay_per_epoch if params.ema else None,
        log=log,
        metadata={"model": description, **origin},
    )


def train_classifier(
    encoder: NamedTensors,
    data: LabelledSplits,
    params: Stage2Parameters,
    log: ScalarLog,
    origin: Mapping[str, str],
) -> tuple[list[NamedTensors], History]:
    """Stage 2: the best checkpoints of a linear classifier on the frozen encoder, and the history."""
    torch.manual_seed(params.seed)
    contrastive = restore_model(encoder)
    num_features = contrastive.projection_head[0].in_features  # type: ignore[index, union-attr]
    description = {
        "kind": "classifier",
        "num_features": num_features,
        "num_classes": int(data.labels.max()) + 1,
    }
    return _train(
        "stage 2",
        LinearProbe(contrastive.encoder, build_model(description)),  # type: ignore[arg-type]
        classification_loss(params.label_smoothing),
        data,
        params,
        num_views=1,
        validate=validate_classifier(data, params.validation_batch_size),
        state_of=lambda probe: probe.classifier.state_dict(),  # type: ignore[union-attr]
        log=log,
        metadata={"model": description, "encoder_hash": fingerprint(encoder), **origin},
    )


def average_models(
    checkpoints: Sequence[NamedTensors], data: LabelledSplits, batch_size: int
) -> NamedTensors:
    """One model from several checkpoints: their mean, with batch-norm statistics of the training images.

    The statistics are taken over the training images as they are, because that is how images will come.
    """
    first = checkpoints[0]
    model = build_model(first.metadata["model"])
    model.load_state_dict(average_states([checkpoint.tensors for checkpoint in checkpoints]))
    if has_batch_norm(model):
        model = model.to(pick_device())
        # Shuffled, because a batch of one class would not look like the whole.
        order = np.random.default_rng(0).permutation(data.indices("train"))
        reestimate_batch_norm(model, iterate_images(data.images, order, batch_size, pick_device()))
    members = [{key: part.metadata[key] for key in ("epoch", "metrics")} for part in checkpoints]
    tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    metadata = {key: value for key, value in first.metadata.items() if key not in ("epoch", "metrics")}
    return NamedTensors(tensors, {**metadata, "averaged": members})


def _train(
    title: str,
    model: nn.Module,
    loss_function: LossFunction,
    data: LabelledSplits,
    params: Stage1Parameters | Stage2Parameters,
    num_views: int,
    validate: Callable[[nn.Module], Metrics],
    log: ScalarLog,
    metadata: dict[str, Any],
    ema_decay_per_epoch: float | None = None,
    state_of: Callable[[nn.Module], Any] = nn.Module.state_dict,
) -> tuple[list[NamedTensors], History]:
    """What both stages share: loader, optimizer, schedule, checkpoints and the following of the records."""
    model = model.to(pick_device())
    policy = ViewPolicy([spec.model_dump() for spec in params.transforms], num_views)
    loader = build_loader(
        data.images,
        data.labels,
        data.indices("train"),
        policy,
        **params.loader.model_dump(),
        seed=params.seed,
    )
    num_epochs, metric = params.schedule.num_epochs, params.checkpoints.metric
    optimizer = build_optimizer(model, **params.optimizer.model_dump())
    is_higher_better = metric not in LOWER_IS_BETTER
    schedule = build_schedule(
        optimizer, len(loader), **params.schedule.model_dump(), is_higher_better=is_higher_better
    )
    ema = build_ema(model, ema_decay_per_epoch, len(loader)) if ema_decay_per_epoch else None
    records = fit(
        model, loss_function, loader, optimizer, schedule, num_epochs, validate, metric, state_of, ema
    )
    top = TopCheckpoints(metric, params.checkpoints.top_k, metadata)
    history = Monitor(title, log, num_epochs * len(loader)).follow(records, top)
    return top.checkpoints, history
