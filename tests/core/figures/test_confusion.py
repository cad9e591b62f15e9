import numpy as np

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
    (listed,) = texts(figure.axes[0])
    assert listed.splitlines()[2:] == ["4 of 9   class 7 → class 9", "2 of 7   class 3 → class 4"]
    assert max(figure.get_size_inches()) <= 16
    figure.draw_without_rendering()


def test_names_are_thinned_only_where_they_cannot_be_read():
    def names_shown(num_classes):
        figure = draw_confusion(np.eye(num_classes, dtype=int), [str(index) for index in range(num_classes)])
        return len(figure.axes[0].get_yticklabels())

    assert [names_shown(count) for count in (2, 100, 400)] == [2, 100, 100]
