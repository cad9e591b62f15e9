"""Nodes of `swa`."""

from typing import Any

import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.named_tensors import NamedTensors, require_origin, split_parts
from supcon_pipeline.core.parameters.stages import SwaParameters

# The pipeline that trains each kind of model.
_STAGES = {"contrastive": "stage1", "classifier": "stage2", "image_classifier": "baseline"}


def average_checkpoints(
    checkpoints: NamedTensors,
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: SwaParameters,
) -> NamedTensors:
    """One model from the best checkpoints of a stage; none if the stage has trained none."""
    from supcon_pipeline.core.training.swa import average_models

    parts = split_parts(checkpoints)
    if not parts:
        return NamedTensors({}, {"data_hash": dataset_card["data_hash"]})
    metadata, data_hash = parts[0].metadata, dataset_card["data_hash"]
    remedy = f"type: kedro run --pipelines {_STAGES[metadata['model']['kind']]}"
    require_origin("checkpoints", metadata, "data_hash", data_hash, remedy)
    data = LabelledImages.of(prepared_images, samples)
    return average_models(parts, data, params.batch_size)
