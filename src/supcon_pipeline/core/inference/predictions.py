"""What a run says of images: of those of its test split, and of new ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from supcon_pipeline.core.inference.nearest import list_otherwise
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.metrics.logits import require_finite_logits
from supcon_pipeline.core.models.encoder import restore_model
from supcon_pipeline.core.named_tensors import NamedTensors, require_encoder
from supcon_pipeline.core.parameters.inference import InferenceParameters
from supcon_pipeline.core.search.index import search_index
from supcon_pipeline.core.search.knn import log_votes
from supcon_pipeline.core.vectors import require_finite

# The percentile of the distance from which an image is unlike those of the run.
FAR = 99


def classify_embeddings(
    classifier: NamedTensors, embeddings: Float[np.ndarray, "n dim"], encoder_hash: str
) -> Float[Tensor, "n classes"]:
    """The logits of the classifier.

    Args:
        classifier: a state.
        embeddings: one row per image.
        encoder_hash: the fingerprint of the encoder that gave them.

    Raises:
        InputError: where the classifier was trained on another encoder, or an embedding is not finite.
    """
    require_encoder(classifier, encoder_hash)
    require_finite("embeddings", embeddings)
    logits: Tensor = restore_model(classifier)(torch.from_numpy(embeddings))
    return logits.detach()


def tabulate_predictions(
    samples: pd.DataFrame, logits: Float[Tensor, "n classes"], class_names: Sequence[str]
) -> pd.DataFrame:
    """The samples with the likeliest class of each, `predicted` and `predicted_class`, and its `probability`.

    Args:
        samples: one row per image.
        logits: in the same order.
        class_names: one name per class.

    Raises:
        InputError: where a logit is not finite.
    """
    require_finite_logits(logits.numpy())
    probability, predicted = logits.softmax(dim=1).max(dim=1)
    names = np.array(class_names)[predicted.numpy()]
    return samples.assign(predicted=predicted.numpy(), predicted_class=names, probability=probability.numpy())


def neighbour_distances(similarities: Float[np.ndarray, "n k"], k: int) -> Float[np.ndarray, " n"]:
    """How unlike the training images each image is: the distance to its `k`-th nearest, from 0 to 2.

    Args:
        similarities: cosine, nearest first.
        k: counted from 1.

    Raises:
        ValueError: where there are fewer neighbours.
        InputError: where a similarity is not finite.

    Source:
        Sun et al. 2022, arXiv:2204.06507, section 3: Euclidean distance of embeddings of length 1.
    """
    if not 1 <= k <= similarities.shape[1]:
        raise ValueError(f"k must be from 1 to the number of neighbours ({similarities.shape[1]}), got {k}")
    require_finite("similarities", similarities)
    distances: np.ndarray = np.sqrt(np.maximum(2 - 2 * similarities[:, k - 1], 0))
    return distances


def percentiles(values: Float[np.ndarray, " n"], known: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """The share of known values that are at most as high as each value, from 0 to 100.

    Raises:
        InputError: where no value is known.
    """
    if not len(known):
        raise ValueError("known values must be at least one, got none")
    shares: np.ndarray = 100 * np.searchsorted(np.sort(known), values, side="right") / len(known)
    return shares


def search_report(
    index: Any,
    queries: Float[np.ndarray, "n dim"],
    validation: Float[np.ndarray, "m dim"],
    validation_ids: Sequence[str],
    gallery: pd.DataFrame,
    class_names: Sequence[str],
    calibration: float,
    params: InferenceParameters,
    acceptance: float | None = None,
) -> pd.DataFrame:
    """What the images searched say of each query: class by k-NN, distance, its percentile, the nearest.

    Args:
        index: of the embeddings of the images that are searched.
        queries: embeddings of new images.
        validation: embeddings of the validation images, whose distances give the percentile its meaning.
        validation_ids: the id of each.
        gallery: `id`, `class_name` and `label` of each row of the index.
        class_names: one name per class, those of the gallery among them.
        calibration: the temperature by which evaluation found the votes of k-NN calibrated.
        params: of `inference`; re-ranking and query expansion change which images are listed as nearest, and
            their similarities, alone.
        acceptance: the cosine similarity to the nearest image below which a query is of an unknown class; if
            none, it is where the query is farther than 99 % of the validation images.
    """
    from scipy.special import softmax

    within, own = params.within(index.ntotal), pd.Index(gallery["id"]).get_indexer(pd.Index(validation_ids))
    # A validation image that is searched itself has one image fewer to be far from.
    distance_k = min(within.distance_k, index.ntotal - int((own >= 0).any()))
    k = max(within.knn.k, distance_k, within.num_neighbours)
    similarities, rows = find_neighbours(index, queries, gallery, k)
    voting = similarities[:, : within.knn.k], gallery["label"].to_numpy()[rows[:, : within.knn.k]]
    votes = softmax(log_votes(*voting, len(class_names), within.knn.temperature) / calibration, axis=1)
    distances = neighbour_distances(similarities, distance_k)
    known = _search_validation(index, validation, own, gallery, distance_k)
    scores = pd.DataFrame(
        {
            "knn_class": np.array(class_names)[votes.argmax(axis=1)],
            "knn_probability": votes.max(axis=1),
            "distance": distances,
            "distance_percentile": percentiles(distances, neighbour_distances(known, distance_k)),
        }
    )
    scores["is_unknown"] = (
        scores["distance_percentile"] >= FAR if acceptance is None else similarities[:, 0] < acceptance
    )
    listed = list_otherwise(index, queries, within.num_neighbours, params) or (similarities, rows)
    return scores.join(tabulate_neighbours(*listed, gallery, within.num_neighbours))


def add_classes(
    table: pd.DataFrame, logits: Float[Tensor, "n classes"], temperature: float, class_names: Sequence[str]
) -> pd.DataFrame:
    """The table with the likeliest class and its probability after the first column.

    Args:
        table: one row per image.
        logits: of the classifier.
        temperature: above 0, that the logits are divided by, so that probabilities are calibrated.
        class_names: one name per class.

    Raises:
        InputError: where a logit is not finite.
    """
    require_finite_logits(logits.numpy())
    probabilities = (logits / temperature).softmax(dim=1).numpy()
    table = table.copy()
    table.insert(1, "classifier_class", np.array(class_names)[probabilities.argmax(axis=1)])
    table.insert(2, "classifier_probability", probabilities.max(axis=1))
    return table


def tabulate_neighbours(
    similarities: Float[np.ndarray, "n k"], rows: Int[np.ndarray, "n k"], gallery: pd.DataFrame, count: int
) -> pd.DataFrame:
    """The nearest images of each image: `nearest_1_id`, `_class`, `_similarity`, and so on.

    Args:
        similarities: cosine, nearest first.
        rows: of the neighbours in the gallery.
        gallery: `id` and `class_name` of each row of the index.
        count: how many neighbours to list, from 1 to `k`.
    """
    columns: dict[str, Any] = {}
    for rank in range(count):
        nearest = gallery.iloc[rows[:, rank]]
        columns[f"nearest_{rank + 1}_id"] = nearest["id"].to_numpy()
        columns[f"nearest_{rank + 1}_class"] = nearest["class_name"].to_numpy()
        columns[f"nearest_{rank + 1}_similarity"] = similarities[:, rank]
    return pd.DataFrame(columns)


def _search_validation(
    index: Any,
    validation: Float[np.ndarray, "n dim"],
    own: Int[np.ndarray, " n"],
    gallery: pd.DataFrame,
    k: int,
) -> Float[np.ndarray, "n k"]:
    """Similarities of the nearest images of each validation image; `own` is its place in the index, or -1."""
    similarities, rows = find_neighbours(index, validation, gallery, k + int((own >= 0).any()))
    order = np.argsort(rows == own[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1)


def find_neighbours(
    index: Any, queries: Float[np.ndarray, "n dim"], gallery: pd.DataFrame, k: int
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """The nearest of the images that are searched: similarities, and rows in the gallery.

    Raises:
        InputError: as `search_index` does, and where the index is not of these images.
    """
    if index.ntotal != len(gallery):
        raise InputError(
            f"train_index must hold the {len(gallery)} images that are searched, got {index.ntotal}; "
            "type: kedro run --pipelines index"
        )
    return search_index(index, queries, k)
