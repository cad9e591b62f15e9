"""Nodes of `swa`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.images import LabelledImages
from supcon_pipeline.core.parameters import SwaParameters


def average_checkpoints(
    checkpoints: Any, prepared_images: np.ndarray, samples: pd.DataFrame, params: SwaParameters
) -> Any:
    """One model from the best checkpoints of a stage."""
    from supcon_pipeline.core.stages import average_models
    from supcon_pipeline.core.tensors import split_parts

    data = LabelledImages(prepared_images, samples["label"].to_numpy(), samples["split"].to_numpy())
    return average_models(split_parts(checkpoints), data, params.batch_size)
