"""Nodes of `baseline`."""

from contextlib import AbstractContextManager
from typing import Any

import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.named_tensors import NamedTensors, join_parts
from supcon_pipeline.core.parameters.stages import BaselineParameters, Stage1Parameters
from supcon_pipeline.core.training.progress import ProgressStore


def train_baseline(
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    tensorboard: AbstractContextManager[Any],
    progress: ProgressStore,
    stage1: Stage1Parameters,
    params: BaselineParameters,
) -> tuple[NamedTensors, pd.DataFrame]:
    """The best checkpoints of encoder and classifier, and the history of their training."""
    from supcon_pipeline.core.training.recipes import baseline_stage
    from supcon_pipeline.core.training.resumable import run_stage

    data = LabelledImages.of(prepared_images, samples)
    stage = baseline_stage(data, dataset_card, stage1, params)
    with tensorboard as log:
        checkpoints, history = run_stage(stage, data, log, progress, run_record["run_id"])
    return join_parts(checkpoints), pd.DataFrame(history)
