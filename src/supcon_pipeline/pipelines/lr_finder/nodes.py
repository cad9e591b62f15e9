"""Nodes of `lr_finder`."""

from typing import Any

import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors, require_origin
from supcon_pipeline.core.parameters.stages import LrFinderParameters, Stage1Parameters, Stage2Parameters

# Of matplotlib, which is loaded by what draws alone.
Figure = Any


def trace_stage1_loss(
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    stage1: Stage1Parameters,
    params: LrFinderParameters,
) -> pd.DataFrame:
    """Loss of stage 1 against a rising learning rate."""
    from supcon_pipeline.core.training.lr_range import lr_curve
    from supcon_pipeline.core.training.recipes import contrastive_stage

    data = LabelledImages.of(prepared_images, samples)
    stage = contrastive_stage(data, dataset_card, stage1)
    return pd.DataFrame(lr_curve(stage, data, **params.model_dump()))


def trace_stage2_loss(
    encoder: NamedTensors,
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    stage2: Stage2Parameters,
    params: LrFinderParameters,
) -> pd.DataFrame:
    """Loss of stage 2 against a rising learning rate.

    Raises:
        InputError: where validation and test hold classes that train lacks, as stage 2 trains nothing then.
    """
    from supcon_pipeline.core.training.lr_range import lr_curve
    from supcon_pipeline.core.training.recipes import classifier_stage

    remedy = "type: kedro run --pipelines stage1,stage1_swa"
    require_origin("encoder", encoder.metadata, "data_hash", dataset_card["data_hash"], remedy)
    data = LabelledImages.of(prepared_images, samples)
    if data.has_unseen_classes:
        raise InputError(
            "stage2_lr_finder must have classes of train in validation and test, got none of them there, "
            "where stage 2 trains no classifier; for stage 1, type: kedro run --pipelines stage1_lr_finder"
        )
    stage = classifier_stage(encoder, data, dataset_card, stage2)
    return pd.DataFrame(lr_curve(stage, data, **params.model_dump()))


def suggest_learning_rate(curve: pd.DataFrame) -> dict[str, float]:
    """The learning rate where the loss falls fastest, and where it is lowest."""
    from supcon_pipeline.core.training.lr_range import suggest_lr

    return suggest_lr(curve.to_dict(orient="records"))


def draw_curve(curve: pd.DataFrame, suggestion: dict[str, float]) -> Figure:
    """The curve with the suggestion."""
    from supcon_pipeline.core.figures.curves import draw_lr_curve

    return draw_lr_curve(curve, suggestion)
