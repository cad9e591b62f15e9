"""What the weights that a training starts from are worth without it."""

from typing import Any

import numpy as np
import torch

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.models.embed import embed_by
from supcon_pipeline.core.models.encoder import restore_model
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.stages import Stage1Parameters, Stage2Parameters
from supcon_pipeline.core.training.progress import ProgressStore
from supcon_pipeline.core.training.recipes import Card, classifier_stage, contrastive_stage
from supcon_pipeline.core.training.resumable import run_stage
from supcon_pipeline.core.training.swa import average_models


def published_features(
    data: LabelledImages,
    dataset_card: Card,
    stage1: Stage1Parameters,
    stage2: Stage2Parameters,
    swa_batch_size: int,
    log: Any,
    store: ProgressStore,
    run_id: str,
) -> NamedTensors:
    """Embeddings of all images by the encoder that stage 1 starts from, and logits of a linear classifier.

    The classifier is trained and averaged as that of stage 2 is.

    Args:
        data: `train` to train the classifier on, `validation` to choose its checkpoints.
        dataset_card: as for `contrastive_stage`.
        stage1: says which weights and how images are normalised.
        stage2: how the classifier is trained.
        swa_batch_size: images per forward pass of the average.
        log: a TensorBoard `SummaryWriter`.
        store: keeps the progress of the classifier.
        run_id: goes into the metadata of the checkpoints.

    Returns:
        `embedding`, a row per image, and, unless train lacks the classes of validation, `logits` of the
        images of validation and test, which `logits_rows` names; `backbone` in the metadata has the
        parameters that name the weights.
    """
    plain = stage1.model_copy(update={"embedding_dim": None, "unseen_embedding_dim": None})
    stage = contrastive_stage(data, dataset_card, plain)
    start = NamedTensors(dict(stage.state_of(stage.model)), stage.metadata(run_id))
    embeddings = embed_by(start, data.images, stage1.validation_batch_size, pick_device())
    tensors = {"embedding": embeddings.tensors["embedding"]}
    if not data.has_unseen_classes:
        probe = classifier_stage(start, data, dataset_card, stage2, "published")
        checkpoints, _ = run_stage(probe, data, log, store, run_id)
        classifier = restore_model(average_models(checkpoints, data, swa_batch_size))
        with torch.inference_mode():
            rows = torch.from_numpy(np.flatnonzero(np.isin(data.splits, ("validation", "test"))))
            tensors |= {"logits": classifier(tensors["embedding"][rows]), "logits_rows": rows}
    return NamedTensors(tensors, {"backbone": stage1.backbone.model_dump(), **stage.origin})
