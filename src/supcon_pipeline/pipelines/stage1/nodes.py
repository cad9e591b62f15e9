"""Nodes of `stage1`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.parameters import Stage1Parameters


def pretrain_encoder(
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    tensorboard: Any,
    params: Stage1Parameters,
) -> tuple[Any, pd.DataFrame]:
    """The best checkpoints of encoder and projection head, and the history of their training."""
    from supcon_pipeline.core.stages import LabelledSplits, pretrain
    from supcon_pipeline.core.tensors import join_parts

    data = LabelledSplits(prepared_images, samples["label"].to_numpy(), samples["split"].to_numpy())
    origin = {"run_id": run_record["run_id"], "data_hash": dataset_card["data_hash"]}
    with tensorboard as log:
        checkpoints, history = pretrain(data, dataset_card["mean"], dataset_card["std"], params, log, origin)
    return join_parts(checkpoints), pd.DataFrame(history)
