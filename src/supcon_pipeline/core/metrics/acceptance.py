"""Unknown classes: how similar the nearest image must be for a query to be taken for one of its class."""

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.metrics.similarities import SIMILARITY_STEP, TILE_SIZE, short_rows
from supcon_pipeline.core.vectors import require_labels, require_rows


def acceptance_threshold(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " q"],
    rate: float,
    gallery_rows: Int[np.ndarray, " m"] | None = None,
    copies: Int[np.ndarray, " n"] | None = None,
) -> float:
    """The cosine similarity to the nearest image below which a query is of an unknown class.

    Each row is searched for among images of other classes, as a query whose class the gallery lacks. The
    promise, that no more than `rate` of the queries of an unknown class are accepted, holds for classes that
    were drawn as these were and are searched in a gallery such as this one; in a larger gallery, the nearest
    image is nearer.

    Args:
        embeddings: float, one row per image.
        labels: the class of each row.
        rows: indices of images of classes that training did not see, such as those for validation.
        rate: the share of queries of unknown classes that may be accepted, above 0 and below 1.
        gallery_rows: indices of the rows that are searched; those same rows if not given.
        copies: a number for each row, the same for images that are copies of one another and never meet.

    Returns:
        A threshold; a query is accepted if its nearest image is at least as similar.

    Raises:
        ValueError: as for `nearest_similarities`, or if the rate is out of range.
        InputError: if the classes are too few for the rate, or a row is not finite.
    """
    gallery_rows = rows if gallery_rows is None else gallery_rows
    similarities = nearest_similarities(embeddings, labels, rows, gallery_rows, copies, other_classes=True)
    return conformal_threshold(similarities, np.asarray(labels)[rows], rate)


def conformal_threshold(
    similarities: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"], rate: float
) -> float:
    """The lowest threshold that queries of another such class reach with at most the given probability.

    That probability is over the classes and the query: each class weighs the same, whatever its size, and one
    more class, the one to come, is counted as if it were always accepted.

    Args:
        similarities: of each query to its nearest image in a gallery without its class.
        labels: the class of each query.
        rate: the probability, above 0 and below 1.

    Raises:
        ValueError: if counts differ or the rate is out of range.
        InputError: if the classes are too few: with n of them, the lowest rate is 1 / (n + 1).

    Source:
        Lee, Barber and Willett 2023, arXiv:2306.06342: the quantile of split conformal prediction
        where images come in classes; with one image per class, that of Papadopoulos et al. 2002.
    """
    if len(similarities) != len(labels):
        raise ValueError(f"labels must have one class per query ({len(similarities)}), got {len(labels)}")
    if not 0 < rate < 1:
        raise ValueError(f"rate must be above 0 and below 1, got {rate}")
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    least = 1 / (len(sizes) + 1)
    # Sums of fractions that should equal the rate may miss it by rounding.
    if rate < least - 1e-12:
        raise InputError(
            f"the rate of false accepts must be at least {least:.3g} with {len(sizes)} classes to choose the "
            f"threshold on, got {rate}; set it to {np.ceil(1000 * least) / 1000:g} or hold out more classes"
        )
    order = np.argsort(similarities, kind="stable")
    below = np.cumsum(least / sizes[classes[order]])
    highest_rejected = order[np.searchsorted(below, 1 - rate - 1e-12)]
    # Half a step above it, so that rounding accepts no equal similarity.
    return float(similarities[highest_rejected] + SIMILARITY_STEP / 2)


def nearest_similarities(
    embeddings: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    query_rows: Int[np.ndarray, " q"],
    gallery_rows: Int[np.ndarray, " m"],
    copies: Int[np.ndarray, " n"] | None = None,
    other_classes: bool = False,
    tile_size: int = TILE_SIZE,
) -> Float[np.ndarray, " q"]:
    """The cosine similarity of each query to the nearest image, which is neither itself nor its copy.

    Args:
        embeddings: float, one row per image.
        labels: the class of each row.
        query_rows: indices of the queries.
        gallery_rows: indices of the rows that are searched.
        copies: a number for each row, the same for images that are copies of one another.
        other_classes: whether to search images of other classes alone, as if the gallery lacked the query's.
        tile_size: similarities held at once.

    Raises:
        ValueError: if counts differ, a row is out of range, or a query has no image left to find.
        InputError: if a row is not finite.
    """
    require_labels("embeddings", embeddings, labels)
    if copies is not None and len(copies) != len(embeddings):
        raise ValueError(f"copies must have one number per row ({len(embeddings)}), got {len(copies)}")
    embeddings, labels = np.asarray(embeddings), np.asarray(labels)
    query_rows, gallery_rows = np.asarray(query_rows), np.asarray(gallery_rows)
    require_rows("query_rows", query_rows, len(embeddings))
    require_rows("gallery_rows", gallery_rows, len(embeddings))
    numbers = np.arange(len(embeddings)) if copies is None else np.asarray(copies)
    columns, nearest = short_rows(embeddings[gallery_rows]).T, np.empty(len(query_rows))
    num_rows = max(1, tile_size // len(gallery_rows))
    for start in range(0, len(query_rows), num_rows):
        rows = query_rows[start : start + num_rows]
        similarities = short_rows(embeddings[rows]) @ columns
        similarities[numbers[rows, None] == numbers[gallery_rows]] = -np.inf
        if other_classes:
            similarities[labels[rows, None] == labels[gallery_rows]] = -np.inf
        nearest[start : start + num_rows] = similarities.max(axis=1)
    if np.isneginf(nearest).any():
        kind = "an image of another class" if other_classes else "another image"
        raise ValueError(f"gallery_rows must hold {kind} for each query, got none for some")
    return nearest
