"""Nodes of `stage1`."""

from contextlib import AbstractContextManager
from typing import Any

import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.named_tensors import NamedTensors, join_parts
from supcon_pipeline.core.parameters.stages import Stage1Parameters
from supcon_pipeline.core.training.progress import ProgressStore

# Of matplotlib, which is loaded by what draws alone.
Figure = Any


def pretrain_encoder(
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    tensorboard: AbstractContextManager[Any],
    progress: ProgressStore,
    params: Stage1Parameters,
) -> tuple[NamedTensors, pd.DataFrame]:
    """The best checkpoints of encoder and projection head, and the history of their training."""
    from supcon_pipeline.core.training.recipes import contrastive_stage
    from supcon_pipeline.core.training.resumable import run_stage

    data = LabelledImages.of(prepared_images, samples)
    stage = contrastive_stage(data, dataset_card, params)
    with tensorboard as log:
        checkpoints, history = run_stage(stage, data, log, progress, run_record["run_id"])
    return join_parts(checkpoints), pd.DataFrame(history)


def draw_training_views(
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: Stage1Parameters,
) -> Figure:
    """Some training images with the views that training makes of them."""
    from supcon_pipeline.core.figures.views import draw_views
    from supcon_pipeline.core.training.stage import sample_views

    data = LabelledImages.of(prepared_images, samples)
    images, batch = sample_views(params, params.num_views, data, params.training_sizes)
    return draw_views(images, batch.views.numpy(), batch.labels.numpy(), dataset_card["class_names"])
