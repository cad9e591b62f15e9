"""Nodes of `inference`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import LabelledEmbeddings, RawImages, searched_rows
from supcon_pipeline.core.named_tensors import NamedTensors, require_origin
from supcon_pipeline.core.parameters.inference import InferenceParameters

# Of faiss, which is loaded by what searches alone.
FaissIndex = Any


def read_new_images(
    inference_images: RawImages, encoder: NamedTensors, params: InferenceParameters
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """The images as the encoder takes them, their paths, and those that cannot be read."""
    from supcon_pipeline.core.inference.new_images import read_images

    return read_images(inference_images, encoder, params.num_workers)


def embed_new_images(
    encoder: NamedTensors, new_images: np.ndarray, params: InferenceParameters
) -> NamedTensors:
    """Embedding and projection of every new image, in their order."""
    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.models.embed import embed_by

    return embed_by(encoder, new_images, params.batch_size, pick_device())


def search_new_images(
    new_embeddings: NamedTensors,
    embeddings: NamedTensors,
    train_index: FaissIndex,
    train_index_card: dict[str, Any],
    samples: pd.DataFrame,
    new_samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    knn_metrics: dict[str, Any],
    params: InferenceParameters,
) -> pd.DataFrame:
    """Votes, nearest training images and distance score of each new image."""
    from supcon_pipeline.core.inference.predictions import search_report

    model_hash = embeddings.metadata["model_hash"]
    again = "type: kedro run --pipelines"
    require_origin("new embeddings", new_embeddings.metadata, "model_hash", model_hash, f"{again} inference")
    require_origin("train_index", train_index_card, "model_hash", model_hash, f"{again} index")
    validation, _ = LabelledEmbeddings.of(embeddings, samples).select("embedding", "validation")
    queries = new_embeddings.tensors["embedding"].numpy()
    # Votes on classes that train lacks were not calibrated.
    calibration = knn_metrics["calibrated"]["temperature"] if knn_metrics else 1.0
    names = dataset_card["class_names"]
    acceptance = _find_acceptance(embeddings, samples, params)
    report = search_report(train_index, queries, validation, samples, names, calibration, params, acceptance)
    return new_samples.join(report)


def _find_acceptance(
    embeddings: NamedTensors, samples: pd.DataFrame, params: InferenceParameters
) -> float | None:
    """How similar the nearest image must be, of classes that training has not seen; none if it has seen all.

    Validation images are searched for among all images of other classes, as new ones of an unknown class are.
    """
    from supcon_pipeline.core.metrics.acceptance import acceptance_threshold
    from supcon_pipeline.core.metrics.same_class import lowest_rate

    labelled = LabelledEmbeddings.of(embeddings, samples)
    if not labelled.has_unseen_classes:
        return None
    validation, searched = labelled.rows_of("validation"), searched_rows(samples)
    rate = lowest_rate(labelled.labels[validation], params.false_accept_rate)
    parts = (labelled.outputs["embedding"], labelled.labels, validation)
    return acceptance_threshold(*parts, rate, searched, labelled.copies)


def predict_new_images(
    classifier: NamedTensors,
    new_embeddings: NamedTensors,
    new_neighbours: pd.DataFrame,
    classifier_metrics: dict[str, Any],
    dataset_card: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per new image, for programs and for people; probabilities are calibrated.

    Without the columns of the classifier where there is none.
    """
    from supcon_pipeline.core.inference.predictions import add_classes, classify_embeddings

    if not classifier.tensors:
        return new_neighbours, new_neighbours
    embeddings = new_embeddings.tensors["embedding"].numpy()
    logits = classify_embeddings(classifier, embeddings, new_embeddings.metadata["model_hash"])
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
