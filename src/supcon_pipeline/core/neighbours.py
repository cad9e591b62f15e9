"""Nearest neighbours with faiss, and classification by them."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

# Numbers that are held as float32 at once: 128 MB.
TILE_SIZE = 2**25
# Votes that are held as float64 at once: 32 MB.
VOTES_TILE_SIZE = 2**22


def search_neighbours(
    queries: Float[np.ndarray, "n dim"],
    references: Float[np.ndarray, "m dim"],
    k: int,
    metric: str = "cosine",
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """The `k` nearest references of each query, nearest first: similarities and indices.

    Args:
        queries: float32.
        references: float32.
        k: from 1 to the number of references.
        metric: `cosine`, or `euclidean` with the similarity being the negative squared distance.

    Raises:
        ValueError: where `k` or the metric is out of range.
    """
    import faiss

    if not 1 <= k <= len(references):
        raise ValueError(f"k must be from 1 to the number of references ({len(references)}), got {k}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be cosine or euclidean, got {metric!r}")
    queries = np.array(queries, dtype=np.float32, order="C")
    references = np.array(references, dtype=np.float32, order="C")
    if metric == "cosine":
        faiss.normalize_L2(queries)
        faiss.normalize_L2(references)
        return faiss.knn(queries, references, k, metric=faiss.METRIC_INNER_PRODUCT)
    distances, indices = faiss.knn(queries, references, k, metric=faiss.METRIC_L2)
    return -distances, indices


def find_nearest(
    rows: Shaped[np.ndarray, "n dim"],
    query_rows: Int[np.ndarray, " q"],
    reference_rows: Int[np.ndarray, " m"],
    tile_size: int = TILE_SIZE,
) -> Int[np.ndarray, " q"]:
    """The reference that is nearest to each query by Euclidean distance, as an index of the rows.

    Memory is that of a tile of each, whatever the number of rows. Of equally near ones, the first counts.

    Args:
        rows: of any type, may be memory-mapped.
        query_rows: indices of the queries.
        reference_rows: indices of what is searched.
        tile_size: numbers of a tile.

    Raises:
        ValueError: where there is no reference.
    """
    if not len(reference_rows):
        raise ValueError("reference_rows must hold at least one row, got none")
    num_rows = max(1, tile_size // rows.shape[1])
    nearest = np.zeros(len(query_rows), dtype=np.int64)
    for start in range(0, len(query_rows), num_rows):
        tile = slice(start, start + num_rows)
        queries = rows[query_rows[tile]]
        best = np.full(len(queries), -np.inf)
        for first in range(0, len(reference_rows), num_rows):
            searched = reference_rows[first : first + num_rows]
            similarities, found = search_neighbours(queries, rows[searched], 1, "euclidean")
            is_nearer = similarities[:, 0] > best
            best[is_nearer] = similarities[is_nearer, 0]
            nearest[tile][is_nearer] = searched[found[is_nearer, 0]]
    return nearest


def search_other_neighbours(
    rows: Float[np.ndarray, "n dim"], reference_rows: Int[np.ndarray, " m"], k: int
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Cosine similarities and indices of the `k` references nearest to each row, itself left out.

    Args:
        rows: float32; all are queries.
        reference_rows: indices of the rows that are searched.
        k: from 1 to one less than there are references.

    Raises:
        ValueError: where `k` is out of range.
    """
    if not 1 <= k < len(reference_rows):
        raise ValueError(f"k must be from 1 to {len(reference_rows) - 1}, the other references, got {k}")
    similarities, found = search_neighbours(rows, rows[reference_rows], k + 1)
    neighbours = reference_rows[found]
    # The row itself goes to the end, where the one neighbour too many is cut off.
    is_self = neighbours == np.arange(len(rows))[:, None]
    order = np.argsort(is_self, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(neighbours, order, axis=1)


def knn_probabilities(
    similarities: Float[np.ndarray, "n k"],
    neighbour_labels: Int[np.ndarray, "n k"],
    num_classes: int,
    temperature: float = 0.07,
) -> Float[np.ndarray, "n classes"]:
    """Class probabilities by weighted k-NN: each neighbour votes with `exp(similarity / temperature)`.

    Args:
        similarities: cosine, of each query's neighbours.
        neighbour_labels: the class of each neighbour.
        num_classes: width of the result.
        temperature: above 0; lower gives the nearest more weight.

    Raises:
        ValueError: where the temperature is not above 0.

    Source:
        Wu et al. 2018, arXiv:1805.01978, section 3.4, with the votes scaled to sum to one.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
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
    """`knn_probabilities` of some queries at a time, and which they are: memory is that of a tile.

    Raises:
        ValueError: as `knn_probabilities` does.
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
        ValueError: as `search_neighbours` and `knn_probabilities` do.
    """
    similarities, indices = search_neighbours(queries, references, k)
    return log_votes(similarities, np.asarray(reference_labels)[indices], num_classes, temperature)


def log_votes(
    similarities: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, "n k"],
    num_classes: int,
    temperature: float,
) -> Float[np.ndarray, "n classes"]:
    """Log-probabilities, float32, by weighted k-NN, with one vote more that all classes share.

    A class without a vote is improbable, not impossible: it has its share of 1 / (k + 1), by Laplace's rule
    of succession. The order of the classes stays.

    Args:
        similarities: cosine, of each query's neighbours.
        labels: the class of each neighbour.
        num_classes: width of the result.
        temperature: above 0, of the votes.

    Raises:
        ValueError: as `knn_probabilities` does.
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
        ValueError: as `search_neighbours` and `knn_probabilities` do.
    """
    similarities, indices = search_neighbours(queries, references, max(ks))
    labels = np.asarray(reference_labels)[indices]
    num_classes = int(np.max(reference_labels)) + 1

    def classes(k: int) -> Int[np.ndarray, " n"]:
        tiles = iterate_votes(similarities[:, :k], labels[:, :k], num_classes, temperature)
        return np.concatenate([votes.argmax(axis=1) for _, votes in tiles])

    return {k: classes(k) for k in ks}
