from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import coo_array

from supcon_pipeline.core.figures.confusion import draw_confusion


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_the_confusion_shows_counts_and_the_share_of_each_row():
    figure = draw_confusion(np.array([[3, 1, 0], [0, 2, 2], [0, 0, 0]]), ["ant", "bee", "cat"])
    axis = figure.axes[0]
    counts = {text.get_position(): text.get_text() for text in axis.texts}
    # Positions are (column, row).
    assert counts == {(0, 0): "3", (1, 0): "1", (1, 1): "2", (2, 1): "2"}
    shares = [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]]
    assert np.array_equal(axis.images[0].get_array(), shares)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["ant", "bee", "cat"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "label")
    figure.draw_without_rendering()


def test_many_classes_have_no_counts_but_a_list_of_the_most_confused_pairs():
    names = [f"class {index}" for index in range(100)]
    matrix = 5 * np.eye(100, dtype=int)
    matrix[7, 9], matrix[3, 4] = 4, 2
    figure = draw_confusion(matrix, names)
    (listed,) = [text.get_text() for part in figure.subfigs for text in part.texts]
    assert listed.splitlines()[2:] == ["4 of 9   class 7 → class 9", "2 of 7   class 3 → class 4"]
    assert max(figure.get_size_inches()) <= 16
    figure.draw_without_rendering()


@pytest.mark.parametrize(("num_classes", "num_letters"), [(21, 1), (21, 24), (100, 200)])
def test_the_list_is_whole_and_beside_the_matrix_for_names_of_any_length(num_classes, num_letters):
    names = [f"{index:03d}".ljust(num_letters, "W") for index in range(num_classes)]
    figure = draw_confusion(1000 * np.ones((num_classes, num_classes), dtype=int), names)
    figure.set_dpi(120)
    figure.draw_without_rendering()
    (listed,) = [text for part in figure.subfigs for text in part.texts]
    extent, matrix = listed.get_window_extent(), figure.axes[0].get_window_extent()
    assert matrix.x1 < extent.x0 < extent.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= extent.y0 < extent.y1 <= figure.bbox.y1
    # Names leave the matrix most of the picture's height.
    assert matrix.height > figure.bbox.height / 2


@pytest.mark.parametrize("num_letters", [4, 12, 24])
@pytest.mark.parametrize("num_classes", [2, 5, 10])
def test_no_name_stands_upon_another(num_classes, num_letters):
    names = [f"{index:02d}-{'abcdefghijklmnopqrstu'[: num_letters - 3]}" for index in range(num_classes)]
    figure = draw_confusion(np.eye(num_classes, dtype=int), names)
    figure.draw_without_rendering()
    axis = figure.axes[0]
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        extents = [label.get_window_extent() for label in labels]
        assert not any(first.overlaps(second) for first, second in pairwise(extents))


def test_every_class_that_is_drawn_is_named():
    def names_shown(num_classes):
        figure = draw_confusion(np.eye(num_classes, dtype=int), [str(index) for index in range(num_classes)])
        return len(figure.axes[0].get_yticklabels())

    assert [names_shown(count) for count in (2, 100, 120)] == [2, 100, 120]


@pytest.mark.parametrize("make", [np.asarray, coo_array])
def test_of_very_many_classes_those_of_the_most_confused_pairs_are_drawn(make):
    matrix = 5 * np.eye(400, dtype=int)
    matrix[300, 399], matrix[7, 8] = 15, 2
    figure = draw_confusion(make(matrix), [f"class {index}" for index in range(400)])
    axis = figure.axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    # Beside the four that are confused, the first of the others.
    assert names == [f"class {index}" for index in [*range(38), 300, 399]]
    shares = np.eye(40)
    shares[38, 38:], shares[7, 7:9] = (5 / 20, 15 / 20), (5 / 7, 2 / 7)
    np.testing.assert_allclose(axis.images[0].get_array(), shares)
    assert axis.get_title().endswith("test images, 40 of 400 classes")
    (listed,) = [text.get_text() for part in figure.subfigs for text in part.texts]
    assert listed.splitlines()[2:] == ["15 of 20   class 300 → class 399", "2 of 7   class 7 → class 8"]
    figure.draw_without_rendering()


@pytest.mark.parametrize("num_classes", [2, 21])
def test_a_name_with_dollar_signs_is_no_formula(num_classes):
    names = [f"$\\frac${index}" for index in range(num_classes)]
    draw_confusion(np.ones((num_classes, num_classes), dtype=int), names).draw_without_rendering()
