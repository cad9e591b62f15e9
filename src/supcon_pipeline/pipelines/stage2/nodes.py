"""Nodes of `stage2`."""

import logging
from contextlib import AbstractContextManager
from typing import Any

import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.named_tensors import NamedTensors, join_parts, require_origin
from supcon_pipeline.core.parameters.stages import Stage2Parameters
from supcon_pipeline.core.training.progress import ProgressStore

logger = logging.getLogger(__name__)


def train_linear_classifier(
    encoder: NamedTensors,
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    tensorboard: AbstractContextManager[Any],
    progress: ProgressStore,
    params: Stage2Parameters,
) -> tuple[NamedTensors, pd.DataFrame]:
    """The best checkpoints of the classifier, and the history of its training.

    None where validation and test hold classes that train lacks: a classifier would know none of them.
    """
    from supcon_pipeline.core.training.recipes import classifier_stage
    from supcon_pipeline.core.training.resumable import EMPTY_HISTORY, run_stage

    remedy = "type: kedro run --pipelines stage1,stage1_swa"
    require_origin("encoder", encoder.metadata, "data_hash", dataset_card["data_hash"], remedy)
    data = LabelledImages.of(prepared_images, samples)
    if data.has_unseen_classes:
        logger.warning("Stage 2 trains no classifier: train has none of the classes that are held out")
        return join_parts([]), pd.DataFrame(columns=EMPTY_HISTORY)
    stage = classifier_stage(encoder, data, dataset_card, params)
    with tensorboard as log:
        checkpoints, history = run_stage(stage, data, log, progress, run_record["run_id"])
    return join_parts(checkpoints), pd.DataFrame(history)
