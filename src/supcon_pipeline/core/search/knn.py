"""Weighted k-NN: classes by votes of the nearest references."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.search.neighbours import search_neighbours
from supcon_pipeline.core.vectors import require_finite

# Votes held at once: 32 MB as float64.
VOTES_TILE_SIZE = 2**22


def knn_probabilities(
    similarities: Float[np.ndarray, "n k"],
    neighbour_labels: Int[np.ndarray, "n k"],
    num_classes: int,
    temperature: float = 0.07,
) -> Float[np.ndarray, "n classes"]:
    """Class probabilities by weighted k-NN: each neighbour votes with `exp(similarity / temperature)`.

    Args:
        similarities: cosine similarities of each query's neighbours.
        neighbour_labels: the class of each neighbour.
        num_classes: width of the result.
        temperature: above 0; lower gives the nearest more weight.

    Raises:
        ValueError: if the temperature is not above 0.
        InputError: if a similarity is not finite.

    Source:
        Wu et al. 2018, arXiv:1805.01978, section 3.4, with the votes scaled to sum to one.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    require_finite("similarities", similarities)
    # Relative to the nearest neighbour, so that no weight overflows.
    weights = np.exp((similarities - similarities.max(axis=1, keepdims=True)) / temperature)
    votes = np.zeros((len(similarities), num_classes))
    np.add.at(votes, (np.arange(len(votes))[:, None], neighbour_labels), weights)
    votes /= votes.sum(axis=1, keepdims=True)
    return votes


def iterate_votes(
    similarities: Float[np.ndarray, "n k"],
    neighbour_labels: Int[np.ndarray, "n k"],
    num_classes: int,
    temperature: float,
    tile_size: int = VOTES_TILE_SIZE,
) -> Iterator[tuple[slice, Float[np.ndarray, "some classes"]]]:
    """`knn_probabilities` one tile of queries at a time, each with its slice, to bound memory.

    Raises:
        ValueError: as for `knn_probabilities`.
    """
    step = max(1, tile_size // num_classes)
    for start in range(0, len(similarities), step):
        tile = slice(start, start + step)
        yield tile, knn_probabilities(similarities[tile], neighbour_labels[tile], num_classes, temperature)


def neighbour_log_votes(
    queries: Float[np.ndarray, "n dim"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
    k: int,
    temperature: float,
    num_classes: int,
) -> Float[np.ndarray, "n classes"]:
    """`log_votes` of the k nearest references of each query.

    Raises:
        ValueError: as for `search_neighbours` and `knn_probabilities`.
    """
    similarities, indices = search_neighbours(queries, references, k)
    return log_votes(similarities, np.asarray(reference_labels)[indices], num_classes, temperature)


def log_votes(
    similarities: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, "n k"],
    num_classes: int,
    temperature: float,
) -> Float[np.ndarray, "n classes"]:
    """Log-probabilities, float32, by weighted k-NN with one extra vote shared by all classes.

    A class without votes is improbable, not impossible: it gets its share of 1 / (k + 1), by Laplace's rule
    of succession. The order of the classes does not change.

    Args:
        similarities: cosine similarities of each query's neighbours.
        labels: the class of each neighbour.
        num_classes: width of the result.
        temperature: temperature of the votes, above 0.

    Raises:
        ValueError: as for `knn_probabilities`.
    """
    k = similarities.shape[1]
    scores = np.empty((len(similarities), num_classes), dtype=np.float32)
    for tile, votes in iterate_votes(similarities, labels, num_classes, temperature):
        scores[tile] = np.log((k * votes + 1 / num_classes) / (k + 1))
    return scores


def classify_by_prefixes(
    queries: Float[np.ndarray, "n dim"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
    ks: Sequence[int],
    temperature: float,
) -> dict[int, Int[np.ndarray, " n"]]:
    """The class of each query by weighted k-NN for several `k`, from one search.

    Raises:
        ValueError: as for `search_neighbours` and `knn_probabilities`.
    """
    similarities, indices = search_neighbours(queries, references, max(ks))
    labels = np.asarray(reference_labels)[indices]
    num_classes = int(np.max(reference_labels)) + 1

    def classes(k: int) -> Int[np.ndarray, " n"]:
        tiles = iterate_votes(similarities[:, :k], labels[:, :k], num_classes, temperature)
        return np.concatenate([votes.argmax(axis=1) for _, votes in tiles])

    return {k: classes(k) for k in ks}
