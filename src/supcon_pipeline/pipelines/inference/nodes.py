"""Nodes of `inference`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.parameters.inference import InferenceParameters


def read_new_images(
    inference_images: RawImages, encoder: Any, params: InferenceParameters
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """The images as the encoder takes them, their paths, and those that cannot be read."""
    from supcon_pipeline.core.inference.new_images import read_images

    return read_images(inference_images, encoder, params.num_workers)


def embed_new_images(encoder: Any, new_images: np.ndarray, params: InferenceParameters) -> Any:
    """Embedding and projection of every new image, in their order."""
    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.models.embed import embed_by

    return embed_by(encoder, new_images, params.batch_size, pick_device())


def search_new_images(
    new_embeddings: Any,
    embeddings: Any,
    train_index: Any,
    train_index_card: dict[str, Any],
    samples: pd.DataFrame,
    new_samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    knn_metrics: dict[str, Any],
    params: InferenceParameters,
) -> pd.DataFrame:
    """Votes, nearest training images and distance score of each new image."""
    from supcon_pipeline.core.data.images import rows_of
    from supcon_pipeline.core.inference.predictions import search_report
    from supcon_pipeline.core.named_tensors import NamedTensors, require_order, require_origin

    model_hash = embeddings.metadata["model_hash"]
    require_origin("new embeddings", new_embeddings, "model_hash", model_hash, "run inference anew")
    indexed = NamedTensors({}, train_index_card)
    require_origin("train_index", indexed, "model_hash", model_hash, "run index on these embeddings")
    require_order(embeddings, samples["id"])
    validation = embeddings.tensors["embedding"].numpy()[rows_of(samples, "validation")]
    queries = new_embeddings.tensors["embedding"].numpy()
    names, calibration = dataset_card["class_names"], knn_metrics["calibrated"]["temperature"]
    report = search_report(train_index, queries, validation, samples, names, calibration, params)
    return new_samples.join(report)


def predict_new_images(
    classifier: Any,
    new_embeddings: Any,
    new_neighbours: pd.DataFrame,
    classifier_metrics: dict[str, Any],
    dataset_card: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per new image, for programs and for people; probabilities are calibrated."""
    from supcon_pipeline.core.inference.predictions import add_classes
    from supcon_pipeline.core.models.encoder import restore_model
    from supcon_pipeline.core.named_tensors import require_origin

    encoder_hash, remedy = new_embeddings.metadata["model_hash"], "run stage2 and its swa on this encoder"
    require_origin("classifier", classifier, "encoder_hash", encoder_hash, remedy)
    logits = restore_model(classifier)(new_embeddings.tensors["embedding"]).detach()
    temperature = classifier_metrics["calibrated"]["temperature"]
    table = add_classes(new_neighbours, logits, temperature, dataset_card["class_names"])
    return table, table


def draw_gallery(
    inference_predictions: pd.DataFrame,
    new_images: np.ndarray,
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    unreadable_images: pd.DataFrame,
    run_record: dict[str, Any],
    params: InferenceParameters,
) -> str:
    """One page with every new image, what is said of it, and its nearest training images."""
    from supcon_pipeline.core.pages.gallery import render_gallery

    return render_gallery(
        inference_predictions,
        new_images,
        prepared_images,
        samples,
        unreadable_images,
        run_record["run_id"],
        params.max_gallery_images,
    )
