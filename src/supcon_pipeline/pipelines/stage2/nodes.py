"""Nodes of `stage2`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.parameters import Stage2Parameters


def train_linear_classifier(
    encoder: Any,
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    tensorboard: Any,
    params: Stage2Parameters,
) -> tuple[Any, pd.DataFrame]:
    """The best checkpoints of the classifier, and the history of its training."""
    from supcon_pipeline.core.stages import LabelledSplits, train_classifier
    from supcon_pipeline.core.tensors import join_parts

    data = LabelledSplits(prepared_images, samples["label"].to_numpy(), samples["split"].to_numpy())
    origin = {"run_id": run_record["run_id"], "data_hash": dataset_card["data_hash"]}
    with tensorboard as log:
        checkpoints, history = train_classifier(encoder, data, params, log, origin)
    return join_parts(checkpoints), pd.DataFrame(history)
