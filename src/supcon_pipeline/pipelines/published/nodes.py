"""Nodes of `published`."""

from contextlib import AbstractContextManager
from typing import Any

import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.stages import Stage1Parameters, Stage2Parameters, SwaParameters
from supcon_pipeline.core.training.progress import ProgressStore


def embed_start(
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    tensorboard: AbstractContextManager[Any],
    progress: ProgressStore,
    stage1: Stage1Parameters,
    stage2: Stage2Parameters,
    swa: SwaParameters,
) -> NamedTensors:
    """Embeddings of the weights that stage 1 starts from, and logits by stage 2's recipe.

    Without rows where stage 1 starts from scratch, without logits where train lacks the held-out classes.
    """
    from supcon_pipeline.core.training.published import published_features

    origin = {"sample_ids": samples["id"].tolist()}
    if not stage1.backbone.is_loaded:
        return NamedTensors({}, origin)
    data = LabelledImages.of(prepared_images, samples)
    with tensorboard as log:
        features = published_features(
            data, dataset_card, stage1, stage2, swa.batch_size, log, progress, run_record["run_id"]
        )
    return NamedTensors(features.tensors, {**features.metadata, **origin})
