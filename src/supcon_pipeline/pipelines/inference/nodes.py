"""Nodes of `inference`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledEmbeddings, RawImages
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
    gallery_index: FaissIndex | None,
    gallery_rows: pd.DataFrame | None,
    enrolled_embeddings: NamedTensors | None,
    samples: pd.DataFrame,
    new_samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    knn_metrics: dict[str, Any],
    params: InferenceParameters,
) -> pd.DataFrame:
    """Votes, nearest images and distance score of each new image, among those of the run and enrolled."""
    from supcon_pipeline.core.inference.galleries import class_names_of, gallery_of, warn_of_few_enrolled
    from supcon_pipeline.core.inference.predictions import search_report

    _require_model(new_embeddings, embeddings, train_index_card)
    index, gallery = train_index, gallery_of(samples)
    if gallery_index is not None and gallery_rows is not None:
        index, gallery = gallery_index, gallery_rows
    labelled = LabelledEmbeddings.of(embeddings, samples)
    validation, _ = labelled.select("embedding", "validation")
    ids = samples["id"].iloc[labelled.rows_of("validation")]
    # Votes on classes that train lacks were not calibrated.
    calibration = knn_metrics["calibrated"]["temperature"] if knn_metrics else 1.0
    names = class_names_of(gallery, dataset_card["class_names"])
    acceptance = _find_acceptance(labelled, gallery, enrolled_embeddings, params)
    if acceptance is None:
        warn_of_few_enrolled(gallery, dataset_card["class_names"], params.within(len(gallery)).distance_k)
    queries = new_embeddings.tensors["embedding"].numpy()
    known = (validation, ids.tolist(), gallery, names, calibration)
    return new_samples.join(search_report(index, queries, *known, params, acceptance))


def _require_model(
    new_embeddings: NamedTensors, embeddings: NamedTensors, train_index_card: dict[str, Any]
) -> None:
    """Make sure that all is of one encoder."""
    model_hash, again = embeddings.metadata["model_hash"], "type: kedro run --pipelines"
    require_origin("new embeddings", new_embeddings.metadata, "model_hash", model_hash, f"{again} inference")
    require_origin("train_index", train_index_card, "model_hash", model_hash, f"{again} index")


def _find_acceptance(
    labelled: LabelledEmbeddings,
    gallery: pd.DataFrame,
    enrolled_embeddings: NamedTensors | None,
    params: InferenceParameters,
) -> float | None:
    """How similar the nearest image must be, of classes that training has not seen; none if it has seen all.

    Validation images are searched for among all images of other classes, as new ones of an unknown class are.
    """
    from supcon_pipeline.core.metrics.acceptance import acceptance_threshold
    from supcon_pipeline.core.metrics.same_class import lowest_rate

    if not labelled.has_unseen_classes:
        return None
    validation = labelled.rows_of("validation")
    rate = lowest_rate(labelled.labels[validation], params.false_accept_rate)
    rows, count = labelled.outputs["embedding"], len(labelled.labels)
    is_enrolled = (gallery["split"] == "enrolled").to_numpy()
    enrolled = gallery[is_enrolled]
    if enrolled_embeddings is not None:
        rows = np.concatenate([rows, enrolled_embeddings.tensors["embedding"].numpy()])
    labels = np.concatenate([labelled.labels, enrolled["label"]])
    copies = np.concatenate([labelled.copies, -1 - np.arange(len(enrolled))])
    searched = gallery["row"].to_numpy() + count * is_enrolled
    return acceptance_threshold(rows, labels, validation, rate, searched, copies)


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
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    gallery_rows: pd.DataFrame | None,
    enrolled_images: np.ndarray | None,
    unreadable_images: pd.DataFrame,
    run_record: dict[str, Any],
    params: InferenceParameters,
) -> str:
    """One page with every new image, what is said of it, and the nearest known images."""
    from supcon_pipeline.core.pages.gallery import render_gallery

    known = [(samples["id"], prepared_images)]
    if gallery_rows is not None and enrolled_images is not None:
        known.append((gallery_rows.loc[gallery_rows["split"] == "enrolled", "id"], enrolled_images))
    return render_gallery(
        inference_predictions,
        new_images,
        known,
        unreadable_images,
        run_record["run_id"],
        params.max_gallery_images,
    )
