"""Nodes of `out_of_distribution`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import LabelledEmbeddings, RawImages
from supcon_pipeline.core.named_tensors import NamedTensors, require_origin
from supcon_pipeline.core.parameters.inference import OutOfDistributionParameters


def embed_outside_images(
    outside_images: RawImages, encoder: NamedTensors, params: OutOfDistributionParameters
) -> tuple[NamedTensors, pd.DataFrame, pd.DataFrame]:
    """Embeddings of the images of another kind, what they are called, and those that cannot be read."""
    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.inference.new_images import held_out_images, read_images
    from supcon_pipeline.core.models.embed import embed_by

    raw = held_out_images(outside_images)
    images, outside_samples, unreadable = read_images(raw, encoder, params.num_workers)
    embeddings = embed_by(encoder, images, params.batch_size, pick_device())
    return embeddings, outside_samples.assign(source=raw.source), unreadable


def score_outside_images(
    outside_embeddings: NamedTensors,
    outside_samples: pd.DataFrame,
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    params: OutOfDistributionParameters,
) -> pd.DataFrame:
    """One row per test image and image of another kind: its distance to the training images.

    Of classes that train lacks, to the other test images.
    """
    from supcon_pipeline.core.inference.predictions import neighbour_distances

    labelled, model_hash = LabelledEmbeddings.of(embeddings, samples), embeddings.metadata["model_hash"]
    outside_origin, remedy = outside_embeddings.metadata, "type: kedro run --pipelines out_of_distribution"
    require_origin("outside embeddings", outside_origin, "model_hash", model_hash, remedy)
    outside = outside_embeddings.tensors["embedding"].numpy()
    similarities = _search_both(labelled, outside, params)
    names = [*samples["id"].iloc[labelled.rows_of("test")], *outside_samples["image"]]
    distance = neighbour_distances(similarities, similarities.shape[1])
    is_outside = np.arange(len(names)) >= len(names) - len(outside)
    return pd.DataFrame({"image": names, "is_outside": is_outside, "distance": distance})


def _search_both(
    labelled: LabelledEmbeddings, outside: np.ndarray, params: OutOfDistributionParameters
) -> np.ndarray:
    """Similarities of the nearest images of the run, of test images and then of the others."""
    from supcon_pipeline.core.search.neighbours import search_gallery, search_neighbours

    inside, _ = labelled.select("embedding", "test")
    if labelled.has_unseen_classes:
        rows, test = labelled.outputs["embedding"], labelled.rows_of("test")
        near, _ = search_gallery(rows, test, test, params.distance_k, (labelled.copies,))
        far, _ = search_neighbours(outside, inside, near.shape[1])
        return np.concatenate([near, far])
    references, _ = labelled.select("embedding", "train")
    k = params.within(len(references)).distance_k
    similarities, _ = search_neighbours(np.concatenate([inside, outside]), references, k)
    return similarities


def measure_detection(
    outside_scores: pd.DataFrame, outside_samples: pd.DataFrame, embeddings: NamedTensors
) -> dict[str, Any]:
    """How well the distance tells the two kinds of images apart."""
    from supcon_pipeline.core.metrics.detection import detection_metrics

    is_outside, distance = outside_scores["is_outside"], outside_scores["distance"].to_numpy()
    return {
        "encoder_run_id": embeddings.metadata["checkpoint"]["run_id"],
        "source": outside_samples["source"].iloc[0],
        "num_inside": int((~is_outside).sum()),
        "num_outside": int(is_outside.sum()),
        **detection_metrics(distance[~is_outside], distance[is_outside]),
    }
