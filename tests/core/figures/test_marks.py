from itertools import combinations

import numpy as np
import pytest
from matplotlib import color_sequences
from matplotlib.colors import to_rgb

from supcon_pipeline.core.figures.marks import (
    COLORS,
    FEW_COLORS,
    NUM_MARKS,
    RIGHT,
    WRONG,
    class_marks,
)

# Machado et al. 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.
SEEN_BY = {
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "trichromat": np.eye(3),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color, vision):
    """CIELAB of a colour as somebody sees it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(SEEN_BY[vision] @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colors", [COLORS, FEW_COLORS])
@pytest.mark.parametrize("vision", SEEN_BY)
def test_the_colours_differ_for_everybody(vision, colors):
    distances = [np.linalg.norm(lab(a, vision) - lab(b, vision)) for a, b in combinations(colors, 2)]
    # A difference of 2.3 is just noticeable.
    assert min(distances) > 15
    assert np.linalg.norm(lab(RIGHT, vision) - lab(WRONG, vision)) > 50


@pytest.mark.parametrize("num_classes", [1, 2, 8, 9, 10, 40, 100, NUM_MARKS])
def test_every_class_has_a_mark_of_its_own(num_classes):
    assert len(set(class_marks(num_classes))) == num_classes


def test_up_to_ten_classes_are_told_apart_by_colour_alone():
    marks = class_marks(10)
    assert len({mark.color for mark in marks}) == 10
    assert {mark.marker for mark in marks} == {"o"}
    assert [to_rgb(mark.color) for mark in marks] == color_sequences["petroff10"]


def test_further_classes_begin_again():
    marks = class_marks(NUM_MARKS + 2)
    assert marks[NUM_MARKS:] == marks[:2]
