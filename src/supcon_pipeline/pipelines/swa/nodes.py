"""Nodes of `swa`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.named_tensors import NamedTensors, require_origin, split_parts
from supcon_pipeline.core.parameters.stages import SwaParameters


def average_checkpoints(
    checkpoints: NamedTensors,
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: SwaParameters,
) -> NamedTensors:
    """One model from the best checkpoints of a stage."""
    from supcon_pipeline.core.training.swa import average_models

    parts, data_hash = split_parts(checkpoints), dataset_card["data_hash"]
    require_origin("checkpoints", parts[0].metadata, "data_hash", data_hash, "run their stage on this data")
    data = LabelledImages.of(prepared_images, samples)
    return average_models(parts, data, params.batch_size)
