"""Accuracy by the number of labelled images per class, from embeddings alone."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from supcon_pipeline.core.metrics.intervals import pooled_interval
from supcon_pipeline.core.search.knn import classify_by_prefixes
from supcon_pipeline.core.search.neighbours import search_neighbours
from supcon_pipeline.core.vectors import require_labels, unit_rows

# Of the table, in their order.
COLUMNS = (
    *("images_per_class", "classifier", "accuracy", "low", "high"),
    *("num_draws", "num_images", "num_classes", "num_smaller_classes"),
)
# Multiplications of one classifier at one point of the curve: a few seconds on a core.
MAX_WORK = 5 * 10**10
# Draws that a search makes whatever they take: one says nothing of the spread, which is small by then.
MIN_DRAWS = 2
# With 1, the default, a class of seven images outweighs one of five, whatever the query.
INVERSE_PENALTY = 10.0
# What a fit takes, in multiplications of a search per image, class and dimension. With fewer dimensions than
# these it takes as long: measured, 0.7 microseconds per image and class at 64 dimensions and 1 at 512.
FIT_WORK = 20
MIN_FIT_DIM = 256
# Scores held at once: 32 MB as float64.
SCORES_TILE_SIZE = 2**22

# From rows, their classes from 0 on, and queries to the classes of the queries.
Classify = Callable[
    [Float[np.ndarray, "m dim"], Int[np.ndarray, " m"], Float[np.ndarray, "n dim"]], Int[np.ndarray, " n"]
]


class _Classifier(NamedTuple):
    """A classifier, and what it takes.

    Args:
        classify: gives the class of each query.
        work: multiplications for one draw, from the numbers of images and classes that are known.
        min_draws: at least as many, whatever they take; with 0, a point that takes too long is left out.
    """

    classify: Classify
    work: Callable[[int, int], int]
    min_draws: int

    def num_draws(self, num_images: int, num_classes: int, wanted: int) -> int:
        """How many of the draws that are wanted can be had."""
        affordable = MAX_WORK // self.work(num_images, num_classes)
        return min(wanted, max(affordable, self.min_draws))


def learning_curve(
    queries: Float[np.ndarray, "n dim"],
    query_labels: Int[np.ndarray, " n"],
    references: Float[np.ndarray, "m dim"],
    reference_labels: Int[np.ndarray, " m"],
    counts: Sequence[int],
    num_draws: int,
    knn_k: int,
    knn_temperature: float,
    num_resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Accuracy of three classifiers that know a few references of each class, and of those that know all.

    A draw is an order in which the images of each class are labelled: with `count` images per class, the
    first `count` of each are known, and a class with fewer gives all it has. All classifiers know the same
    images. The last point is all references. A count that no class exceeds would be the same: it is left out.

    With very many images or classes there are fewer draws, and logistic regression is left out where a single
    fit would take too long.

    Args:
        queries: float, one row per image to score.
        query_labels: the class of each query; one that no reference has counts as wrong.
        references: float, the rows to draw from; must not include the queries.
        reference_labels: the class of each reference.
        counts: images per class, from 1.
        num_draws: draws for each count.
        knn_k: neighbours that vote, at most as many as are known.
        knn_temperature: temperature of the votes, above 0.
        num_resamples: bootstrap resamples of each interval.
        seed: seed of the draws and of the bootstrap.

    Returns:
        A row per count and classifier, in this order: `images_per_class` (for all references, the size of the
        largest class), `classifier` (`k-NN`, `class centre` or `logistic regression`), `accuracy` (mean over
        the draws), `low` and `high` (95 % interval of one draw, over draws and queries), `num_draws`,
        `num_images` (known in each draw), `num_classes` (with references), `num_smaller_classes` (with fewer
        than `images_per_class`).

    Raises:
        ValueError: if rows and labels differ in number, there are no queries or references, or a number is
            out of range.
        InputError: if a row is not finite.

    Source:
        Snell et al. 2017, arXiv:1703.05175, for class centres, here by cosine similarity; Tian et al. 2020,
        arXiv:2003.11539, for logistic regression on unit rows, here with a tenth of the penalty.
    """
    require_labels("queries", queries, query_labels)
    require_labels("references", references, reference_labels)
    smallest = min(len(queries), len(references), num_draws, *counts)
    if smallest < 1:
        raise ValueError(f"queries, references, num_draws and counts must be at least 1, got {smallest}")
    classes, labels, sizes = np.unique(reference_labels, return_inverse=True, return_counts=True)
    places = [_places_in_class(labels, sizes, (seed, draw)) for draw in range(num_draws)]
    classifiers = _classifiers(len(queries), queries.shape[1], knn_k, knn_temperature)
    table = []
    for count in sorted({*(count for count in counts if count < sizes.max()), int(sizes.max())}):
        num_images = int(np.minimum(sizes, count).sum())
        about = {"num_images": num_images, "num_classes": len(classes)}
        about["num_smaller_classes"] = int((sizes < count).sum())
        for name, classifier in classifiers.items():
            wanted = 1 if num_images == len(labels) else num_draws
            draws = places[: classifier.num_draws(num_images, len(classes), wanted)]
            chosen = (np.flatnonzero(place < count) for place in draws)
            found = [classifier.classify(references[rows], labels[rows], queries) for rows in chosen]
            if found:
                scores = _scores(classes[np.stack(found)] == query_labels, num_resamples, seed)
                table.append({"images_per_class": count, "classifier": name, **scores, **about})
    return table


def _places_in_class(
    labels: Int[np.ndarray, " m"], sizes: Int[np.ndarray, " classes"], seed: tuple[int, int]
) -> Int[np.ndarray, " m"]:
    """The place of each image, from 0 on, in a random order of the images of its class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    places = np.empty(len(labels), dtype=np.int32)
    places[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places


def _scores(is_right: Bool[np.ndarray, "draws n"], num_resamples: int, seed: int) -> dict[str, Any]:
    low, high = pooled_interval(is_right, num_resamples, seed)
    return {"accuracy": float(is_right.mean()), "low": low, "high": high, "num_draws": len(is_right)}


def _classifiers(num_queries: int, dim: int, knn_k: int, temperature: float) -> dict[str, _Classifier]:
    """The classifiers by name, in the order of the table."""

    def by_neighbours(
        rows: Float[np.ndarray, "m dim"], labels: Int[np.ndarray, " m"], queries: Float[np.ndarray, "n dim"]
    ) -> Int[np.ndarray, " n"]:
        k = min(knn_k, len(rows))
        return classify_by_prefixes(queries, rows, labels, (k,), temperature)[k]

    return {
        "k-NN": _Classifier(by_neighbours, lambda images, _: images * num_queries * dim, MIN_DRAWS),
        "class centre": _Classifier(
            _nearest_centres, lambda _, classes: classes * num_queries * dim, MIN_DRAWS
        ),
        "logistic regression": _Classifier(
            _by_regression, lambda images, classes: FIT_WORK * images * classes * max(dim, MIN_FIT_DIM), 0
        ),
    }


def _nearest_centres(
    rows: Float[np.ndarray, "m dim"], labels: Int[np.ndarray, " m"], queries: Float[np.ndarray, "n dim"]
) -> Int[np.ndarray, " n"]:
    """The class whose mean of unit rows is most similar to each query."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(int(labels.max()) + 1))
    # A sum has the direction of the mean.
    sums = np.add.reduceat(unit_rows(rows[order]), starts, axis=0, dtype=np.float64)
    _, nearest = search_neighbours(queries, sums, 1)
    return nearest[:, 0]


def _by_regression(
    rows: Float[np.ndarray, "m dim"], labels: Int[np.ndarray, " m"], queries: Float[np.ndarray, "n dim"]
) -> Int[np.ndarray, " n"]:
    """The class by logistic regression on unit rows."""
    from sklearn.linear_model import LogisticRegression

    num_classes = int(labels.max()) + 1
    if num_classes == 1:
        return np.zeros(len(queries), dtype=np.int64)
    with warnings.catch_warnings():
        # Of steps that ran out, which change next to nothing by then, and of classes with a single image.
        warnings.simplefilter("ignore", UserWarning)
        model = LogisticRegression(C=INVERSE_PENALTY).fit(unit_rows(rows), labels)
    tiles = np.array_split(unit_rows(queries), math.ceil(len(queries) * num_classes / SCORES_TILE_SIZE))
    return np.concatenate([model.predict(tile) for tile in tiles])
