"""Where to put the names of classes on a map: each beside a point of its class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from supcon_pipeline.core.figures.names import text_width

FONT_POINTS = 9
# Inches of a line of text, and of the box around it on each side.
LINE, PADDING = 0.13, 0.05
# Inches between a point and its name, and how many hidden classes an inch costs as much as.
GAPS, COST_OF_INCH = (0.1, 0.2, 0.35, 0.5), 0.6
# Positions along the line from a point to its name.
STEPS = np.linspace(0, 0.9, 7)
_DIRECTIONS = np.array([(x, y) for x in (0, 1, -1) for y in (1, 0, -1) if (x, y) != (0, 0)])


class NamePlace(NamedTuple):
    """The point that a name belongs to and the centre of the name, in inches."""

    point: tuple[float, float]
    center: tuple[float, float]


def place_names(
    points: pd.DataFrame, class_names: Sequence[str], size: float, max_names: int
) -> dict[int, NamePlace]:
    """Places for the names of the most compact classes, inside the map and without overlaps.

    A line ties each name to the point deepest inside its class. The name is placed beside that point where it
    hides the fewest other points and none of these lines. A class for which there is no room has no name.

    Args:
        points: points of one panel, with `label`, and `x` and `y` in inches from its lower left corner.
        class_names: one name per class.
        size: width of the square panel in inches.
        max_names: most names to place.
    """
    placed: dict[int, NamePlace] = {}
    if points.empty:
        return placed
    xy, labels = points[["x", "y"]].to_numpy(), points["label"].to_numpy()
    shares = same_class_shares(xy, labels)
    # Every class counts the same, whether it has many points or few.
    weights = 1 / pd.Series(labels).groupby(labels).transform("size").to_numpy()
    # Centre and half size of what no name may cover: names, and points along their lines.
    boxes = np.empty((0, 2, 2))
    for label in compactness(shares, labels).index[:max_names]:
        point = _deepest(xy[labels == label], shares[labels == label])
        half = np.array([text_width([class_names[label]], FONT_POINTS), LINE]) / 2 + PADDING
        center = _best_center(point, half, boxes, xy, weights, size)
        if center is not None:
            line = [[step, (0, 0)] for step in point + STEPS[:, None] * (center - point)]
            boxes = np.concatenate([boxes, [[center, half], *line]])
            placed[int(label)] = NamePlace(tuple(point.tolist()), tuple(center.tolist()))
    return placed


def same_class_shares(
    places: Float[np.ndarray, "n 2"], labels: np.ndarray, num_neighbours: int = 10
) -> Float[np.ndarray, " n"]:
    """For each point, the share of its nearest neighbours on the map that have its label."""
    from sklearn.neighbors import NearestNeighbors

    k = min(num_neighbours, len(places) - 1)
    if k < 1:
        return np.ones(len(places))
    nearest = NearestNeighbors(n_neighbors=k).fit(places).kneighbors(return_distance=False)
    shares: np.ndarray = (labels[nearest] == labels[:, None]).mean(axis=1)
    return shares


def compactness(shares: Float[np.ndarray, " n"], labels: np.ndarray) -> pd.Series:
    """The mean share of each label, best first."""
    return pd.Series(shares).groupby(labels).mean().sort_values(ascending=False, kind="stable")


def _deepest(places: Float[np.ndarray, "m 2"], shares: Float[np.ndarray, " m"]) -> np.ndarray:
    """Of the points with the most neighbours of their class, the one nearest to their centre."""
    best = places[shares == shares.max()]
    nearest: np.ndarray = best[np.linalg.norm(best - np.median(best, axis=0), axis=1).argmin()]
    return nearest


def _best_center(
    point: np.ndarray, half: np.ndarray, boxes: np.ndarray, xy: np.ndarray, weights: np.ndarray, size: float
) -> np.ndarray | None:
    """The centre beside the point where a name hides least; none if there is no room."""
    gaps = np.repeat(GAPS, len(_DIRECTIONS))
    centers = point + np.tile(_DIRECTIONS, (len(GAPS), 1)) * (half + gaps[:, None])
    is_inside = (np.abs(centers - size / 2) + half <= size / 2).all(axis=1)
    is_taken = (np.abs(centers[:, None] - boxes[:, 0]) < half + boxes[:, 1]).all(axis=2).any(axis=1)
    lines = point + STEPS[:, None] * (centers - point)[:, None]
    is_crossing = (np.abs(lines[:, :, None] - boxes[:, 0]) < boxes[:, 1]).all(axis=3).any(axis=(1, 2))
    is_free = is_inside & ~is_taken & ~is_crossing
    centers, gaps = centers[is_free], gaps[is_free]
    if not len(centers):
        return None
    is_hidden = (np.abs(centers[:, None] - xy) < half).all(axis=2)
    best: np.ndarray = centers[(is_hidden @ weights + COST_OF_INCH * gaps).argmin()]
    return best
