"""The trainings of this project: contrastive pretraining, linear classifier, cross-entropy baseline."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import has_published_weights, published_statistics
from supcon_pipeline.core.models.embed import embed_images
from supcon_pipeline.core.models.encoder import Encoder, LinearProbe, Sight, build_model, restore_model
from supcon_pipeline.core.models.timm_networks import TIMM
from supcon_pipeline.core.models.weight_files import read_statistics
from supcon_pipeline.core.models.whitening import start_neck, start_patches
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.optim.low_rank import add_low_rank_updates
from supcon_pipeline.core.parameters.models import BackboneParameters
from supcon_pipeline.core.parameters.optim import FinetuneParameters
from supcon_pipeline.core.parameters.stages import (
    BaselineParameters,
    BaselineTraining,
    EncoderTraining,
    Stage1Parameters,
    Stage2Parameters,
)
from supcon_pipeline.core.training.criteria import (
    adjustment_offsets,
    classification_criterion,
    collapse_loss,
    collapse_room,
    contrastive_criterion,
)
from supcon_pipeline.core.training.memory import ProjectionMemory
from supcon_pipeline.core.training.precision import choose_precision
from supcon_pipeline.core.training.stage import Stage
from supcon_pipeline.core.training.validation import validate_classifier, validate_features

logger = logging.getLogger(__name__)
# The dataset card.
Card = Mapping[str, Any]
# What chooses the baseline's checkpoints where its classifier knows no class of validation.
UNSEEN_METRIC = "embedding.mean_average_precision_at_r"


def contrastive_stage(data: LabelledImages, dataset_card: Card, params: Stage1Parameters) -> Stage:
    """Stage 1: an encoder and a projection head, trained by a contrastive loss.

    Args:
        data: `train` to train on, `validation` to choose checkpoints.
        dataset_card: its `mean` and `std` per channel normalise images, unless the encoder starts from
            weights that have their own; its `data_hash`, `crop` and `storage` go into the checkpoints.
        params: parameters of the stage.
    """
    torch.manual_seed(params.seed)
    offsets = adjustment_offsets(
        data, params.loss.logit_adjustment, params.loader.sampler, "stage1.loss.logit_adjustment"
    )
    _warn_of_equal_classes(params)
    memory = ProjectionMemory(**params.loss.memory.model_dump()) if params.loss.memory else None
    has_proxies = params.loss.name == "proxy_anchor"
    description = {
        "kind": "contrastive",
        **_encoder_description(data, dataset_card, params),
        **(params.projection.model_dump() if params.projection else {}),
        "num_classes": data.num_classes if params.loss.classifier_weight else 0,
        **({"num_proxies": data.num_classes} if has_proxies else {}),
    }
    return Stage(
        "stage1",
        _build_start(description, data, params),
        contrastive_criterion(params.loss, offsets, memory),
        params.num_views,
        validate_features(data, params.validation_batch_size, params.max_validation_queries, params.seed),
        params,
        description,
        _encoder_origin(dataset_card),
        micro_batch_size=params.micro_batch_size,
        # With a classifier head or proxies, the loss is not only that of the projections.
        collapse_loss=None
        if params.loss.classifier_weight or has_proxies
        else collapse_loss(params.loss.name, params.loss.class_averaged, memory),
        collapse_room=collapse_room(data, params),
        has_positives_by_class=params.loss.name not in ("simclr", "proxy_anchor"),
        view_sizes=params.training_sizes,
        is_start_validated=params.backbone.is_loaded,
        memory=memory,
    )


def _warn_of_equal_classes(params: Stage1Parameters) -> None:
    """Say so where averages over the classes of a batch are those over its images."""
    is_balanced = params.loader.sampler == "class_balanced" and params.mixing is None
    if params.loss.class_averaged and is_balanced:
        logger.warning(
            "stage1.loss.class_averaged changes nothing, as class-balanced batches hold as many images of "
            "each of their classes; leave it out with --params stage1.loss.class_averaged=false"
        )


def classifier_stage(
    encoder: NamedTensors,
    data: LabelledImages,
    dataset_card: Card,
    params: Stage2Parameters,
    key: str = "stage2",
) -> Stage:
    """Stage 2: a linear classifier on the frozen encoder; `key` is the pipeline that trains it."""
    torch.manual_seed(params.seed)
    offsets = adjustment_offsets(
        data, params.logit_adjustment, params.loader.sampler, "stage2.logit_adjustment"
    )
    contrastive = restore_model(encoder)
    num_features = contrastive.num_features
    description = {"kind": "classifier", "num_features": num_features, "num_classes": data.num_classes}
    probe = LinearProbe(contrastive.encoder, build_model(description))  # type: ignore[arg-type]
    inputs = None
    if not params.transforms and params.mixing is None:
        # A frozen encoder gives the same image the same embedding in every epoch.
        inputs = _embed_once(probe, data, params)
        probe.encoder = nn.Identity()
        data = replace(data, images=inputs)
    return Stage(
        key,
        probe,
        classification_criterion(params.label_smoothing, offsets),
        1,
        validate_classifier(data, params.validation_batch_size, logit_offsets=offsets),
        params,
        description,
        {"data_hash": dataset_card["data_hash"], "encoder_hash": fingerprint(encoder)},
        # The views of stage 2 are what the encoder sees in evaluation.
        view_sizes=(encoder.metadata["model"]["image_size"],),
        inputs=inputs,
        parameter_group="stage2",
        optimizer_group="stage2",
        state_of=_classifier_state,
    )


def _classifier_state(probe: nn.Module) -> Mapping[str, Tensor]:
    """The weights that are kept of a linear probe."""
    return probe.get_submodule("classifier").state_dict()


def _embed_once(
    probe: LinearProbe, data: LabelledImages, params: Stage2Parameters
) -> Float[np.ndarray, "n features"]:
    """The embeddings of the images that a classifier is trained and validated on; zeros for the others."""
    used = np.concatenate([data.indices("train"), data.indices("validation")])
    device = pick_device()
    with choose_precision(params.precision, device, "stage2.precision").autocast():
        rows = embed_images(probe.to(device), data.images, used, params.validation_batch_size)["embedding"]
    # Only processes that train need it on their GPU, each on its own.
    probe.cpu()
    inputs = np.zeros((len(data.images), rows.shape[1]), np.float32)
    inputs[used] = rows.numpy()
    return inputs


def baseline_stage(
    data: LabelledImages, dataset_card: Card, stage1: Stage1Parameters, baseline: BaselineParameters
) -> Stage:
    """The baseline: cross-entropy with the backbone, views, batches and epochs of stage 1."""
    params = BaselineTraining.of(stage1, baseline)
    if data.has_unseen_classes:
        params = params.chosen_by(UNSEEN_METRIC)
    torch.manual_seed(params.seed)
    offsets = adjustment_offsets(
        data, params.logit_adjustment, params.loader.sampler, "baseline.logit_adjustment"
    )
    description = {
        "kind": "image_classifier",
        **_encoder_description(data, dataset_card, params),
        "num_classes": data.num_classes,
    }
    return Stage(
        "baseline",
        _build_start(description, data, params),
        classification_criterion(params.label_smoothing, offsets),
        params.num_views,
        validate_classifier(
            data, params.validation_batch_size, params.max_validation_queries, params.seed, offsets
        ),
        params,
        description,
        _encoder_origin(dataset_card),
        parameter_group="stage1",
        micro_batch_size=params.micro_batch_size,
        view_sizes=params.training_sizes,
        is_start_validated=params.backbone.is_loaded,
    )


def _encoder_origin(dataset_card: Card) -> dict[str, Any]:
    origin = {key: dataset_card[key] for key in ("data_hash", "crop")}
    # Squares of pixels are not mentioned: encoders of before had no such entry.
    return origin if dataset_card.get("storage", "squares") == "squares" else {**origin, "storage": "encoded"}


def _encoder_description(data: LabelledImages, dataset_card: Card, params: EncoderTraining) -> dict[str, Any]:
    """What an encoder is rebuilt from; the weights that its backbone starts from are not part of it.

    Their normalisation is, however: with another one, the weights would see other colours and contrasts than
    they were trained on.

    Raises:
        InputError: where evaluation would see no pixel.
    """
    backbone = params.backbone
    stored_size, num_channels = data.images.shape[2:]
    mean, std = _statistics_of_start(backbone, num_channels) or (dataset_card["mean"], dataset_card["std"])
    network = {"backbone": backbone.name, "stem": backbone.stem}
    sizes = {"image_size": params.view_size or stored_size}
    if sizes["image_size"] != stored_size or params.center_crop < 1:
        sizes |= {"stored_size": stored_size, "center_crop": params.center_crop}
    if not Sight(stored_size, sizes["image_size"], params.center_crop).side:
        raise InputError(
            f"stage1.center_crop must leave at least one of the {stored_size} pixels that are stored, got "
            f"{params.center_crop}; add --params stage1.center_crop=0.875"
        )
    # What an encoder does not do is left out: those of before had no such entries.
    neck_dim = params.neck_dim(data.has_unseen_classes)
    options = {"embedding_dim": neck_dim, "mirror_average": params.mirror_average}
    used = {name: value for name, value in options.items() if value}
    return {**network, **sizes, **used, "mean": list(mean), "std": list(std)}


def _statistics_of_start(
    backbone: BackboneParameters, num_channels: int
) -> tuple[list[float], list[float]] | None:
    """By what the weights that a training starts from expect images to be normalised, if that is known."""
    architecture = backbone.name.removeprefix(TIMM)
    known = read_statistics(backbone.weights, architecture) if backbone.weights else None
    if known is None:
        return published_statistics(backbone.name, num_channels) if backbone.is_loaded else None
    mean, std = known
    # Kernels of three channels are summed for one.
    return known if len(mean) == num_channels else ([fmean(mean)] * num_channels, [fmean(std)] * num_channels)


def _build_start(description: Card, data: LabelledImages, params: EncoderTraining) -> nn.Module:
    """A model with the weights that a training starts from."""
    weights = {"pretrained": params.backbone.pretrained, "weights": params.backbone.weights}
    finetune = params.finetune or FinetuneParameters()
    model = build_model({**description, **weights, "drop_path": finetune.drop_path})
    encoder: Encoder = model.encoder  # type: ignore[assignment]
    encoder.sees_views_whole = bool(params.view_sizes)
    if params.backbone.is_loaded:
        start_neck(encoder, data, params.validation_batch_size)
    else:
        start_patches(encoder, data, params.validation_batch_size)
        _warn_of_random_start(params.backbone.name, finetune)
    if finetune.lora:
        add_low_rank_updates(encoder.backbone, **finetune.lora.model_dump())
    return model


def _warn_of_random_start(backbone: str, finetune: FinetuneParameters) -> None:
    """Warn that weights that a training is to keep to are random."""
    keeping = ("lora", "freeze_epochs", "freeze_batch_norm", "start_images", "start_classes")
    names = [name for name in keeping if getattr(finetune, name)]
    if names:
        start = "pretrained=true" if has_published_weights(backbone) else "weights=<file>"
        logger.warning(
            "stage1.finetune.%s keeps to the weights that %s starts from, and those are random; start from "
            "others with --params stage1.backbone.%s, or add --params stage1.finetune=null",
            *(names[0], backbone, start),
        )
