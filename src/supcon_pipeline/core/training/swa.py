"""Stochastic weight averaging of a stage's best checkpoints."""

from collections.abc import Sequence

import numpy as np

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.models.embed import iterate_images
from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.models.weights import with_versions
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.optim.averaging import average_states, batch_norms, reestimate_batch_norm


def average_models(
    checkpoints: Sequence[NamedTensors], data: LabelledImages, batch_size: int
) -> NamedTensors:
    """The mean of several checkpoints, with batch-norm statistics estimated anew on the training images.

    They are estimated without augmentation, because that is how images come in use. Those that training has
    left alone stay what they were in the weights that it started from.
    """
    first = checkpoints[0]
    model = build_model(first.metadata["model"])
    averaged = average_states([checkpoint.tensors for checkpoint in checkpoints])
    model.load_state_dict(with_versions(averaged, model))
    if batch_norms(model) and not _has_statistics_of_start(checkpoints):
        model = model.to(pick_device())
        # Shuffled, because batches of a single class are not representative.
        order = np.random.default_rng(0).permutation(data.indices("train"))
        # Batches of two of an odd number leave one image alone, by which batch-norm may not normalise.
        size = max(batch_size, 2 + len(order) % 2)
        reestimate_batch_norm(model, iterate_images(data.images, order, size, pick_device()))
    members = [{key: part.metadata[key] for key in ("epoch", "metrics")} for part in checkpoints]
    tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    metadata = {key: value for key, value in first.metadata.items() if key not in ("epoch", "metrics")}
    return NamedTensors(tensors, {**metadata, "averaged": members})


def _has_statistics_of_start(checkpoints: Sequence[NamedTensors]) -> bool:
    """Whether training has left batch-norm statistics alone.

    Epoch 0 is the start itself, which is kept where no epoch is better.
    """
    finetune = checkpoints[0].metadata.get("parameters", {}).get("finetune") or {}
    return finetune.get("freeze_batch_norm", False) or not any(part.metadata["epoch"] for part in checkpoints)
