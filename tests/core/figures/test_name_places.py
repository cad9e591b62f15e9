from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.figures.name_places import (
    FONT_POINTS,
    compactness,
    place_names,
    same_class_shares,
)
from supcon_pipeline.core.figures.names import text_width

SIZE = 6.0


def make_points(labels, xy):
    return pd.DataFrame({"label": labels, "x": np.array(xy)[:, 0], "y": np.array(xy)[:, 1]})


@cache
def half_size(name):
    """Of the text alone, without the box around it."""
    return np.array([text_width([name], FONT_POINTS) / 2, 0.065])


@pytest.fixture(params=[1, 4])
def crowded(request, rng):
    """A hundred classes of few points each, all over the panel and at its edges, with their names."""
    labels = np.repeat(np.arange(100), request.param)
    names = [f"class {index}" if index % 5 else f"a_long_name_{index}" for index in range(100)]
    return make_points(labels, rng.uniform(0.05, SIZE - 0.05, (len(labels), 2))), names


def test_the_most_compact_classes_come_first(rng):
    xy = np.array([[0, 0], [0.1, 0], [0.2, 0], [5, 0], [5.1, 0], [5.2, 0], [5.05, 0], [5.15, 0], [5.25, 0]])
    labels = np.repeat([7, 1, 2], 3)
    shares = same_class_shares(xy, labels, num_neighbours=2)
    assert shares[:3].tolist() == [1, 1, 1]
    assert compactness(shares, labels).index[0] == 7
    # So many that the neighbours of each can all be of its class.
    points = make_points(np.repeat(labels, 10), np.repeat(xy, 10, axis=0) + rng.normal(0, 0.1, (90, 2)))
    assert list(place_names(points, ["?"] * 8, SIZE, max_names=1)) == [7]


def test_names_are_in_the_panel_and_none_is_upon_another(crowded):
    points, names = crowded
    placed = place_names(points, names, SIZE, max_names=20)
    assert len(placed) > 15
    for label, place in placed.items():
        assert (np.abs(np.array(place.center) - SIZE / 2) + half_size(names[label]) <= SIZE / 2).all()
    for (one, first), (two, second) in combinations(placed.items(), 2):
        distance = np.abs(np.subtract(first.center, second.center))
        assert (distance > half_size(names[one]) + half_size(names[two])).any()


def test_a_name_is_tied_to_a_point_of_its_class_that_no_name_hides(crowded):
    points, names = crowded
    placed = place_names(points, names, SIZE, max_names=20)
    for label, place in placed.items():
        assert place.point in set(
            zip(*points.loc[points["label"] == label, ["x", "y"]].T.values, strict=True)
        )
        for other, named in placed.items():
            assert (np.abs(np.subtract(place.point, named.center)) > half_size(names[other])).any()
            middle = (np.array(place.point) + place.center) / 2
            assert other == label or (np.abs(middle - named.center) > half_size(names[other])).any()


def test_a_name_stands_where_it_hides_nothing():
    # Below and on either side of the point there are others.
    points = make_points([0, 1, 2, 3], [(3, 3), (3, 2.85), (3.2, 3), (2.8, 3)])
    place = place_names(points, ["ant", "bee", "cat", "dog"], SIZE, max_names=1)[0]
    assert place.point == (3, 3)
    hidden = np.abs(points[["x", "y"]].to_numpy() - place.center) < half_size("ant")
    assert not hidden.all(axis=1).any()


def test_a_scattered_class_is_named_where_it_is_and_not_in_the_middle():
    left, right, other = [(1, y / 10) for y in range(9)], [(5, y / 10) for y in range(9)], [(3, 0.4)] * 30
    points = make_points([0] * 18 + [1] * 30, [*left, *right, *other])
    assert place_names(points, ["paper", "glass"], SIZE, max_names=2)[0].point[0] in (1, 5)


def test_a_class_without_room_has_no_name():
    points = make_points([0, 1], [(0.3, 0.3), (0.5, 0.5)])
    assert place_names(points, ["a name", "another"], 0.6, max_names=2) == {}
    assert place_names(points.head(0), ["a name"], SIZE, max_names=2) == {}
