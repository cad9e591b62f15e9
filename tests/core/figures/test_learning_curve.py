import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.figures.learning_curve import draw_accuracies

NAMES = ["k-NN", "class centre", "logistic regression"]


def curve(points, names=NAMES, num_classes=10):
    """Rows by images per class, images and smaller classes, each classifier a little better than the last."""
    rows = [
        {
            "images_per_class": count,
            "classifier": name,
            "accuracy": 0.5 + 0.1 * place,
            "low": 0.4,
            "high": 0.9,
        }
        | {"num_draws": 2, "num_images": images, "num_classes": num_classes, "num_smaller_classes": smaller}
        for count, images, smaller in points
        for place, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def uneven():
    table = curve([(1, 10, 0), (5, 42, 3), (400, 900, 9)])
    # A fit to all images took too long.
    return table.iloc[:-1]


def test_each_classifier_has_its_accuracy_over_the_mean_number_of_images(uneven):
    figure = draw_accuracies(uneven)
    (axis,) = figure.axes
    drawn = {bars.get_label(): bars.lines for bars in axis.containers}
    assert list(drawn) == NAMES
    for place, (name, (line, _, (bars,))) in enumerate(drawn.items()):
        means = [1, 4.2] if name == "logistic regression" else [1, 4.2, 90]
        assert line.get_xdata() == pytest.approx(means, rel=0.05)
        assert line.get_ydata() == pytest.approx([0.5 + 0.1 * place] * len(means))
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        assert ends == pytest.approx(np.array([[0.4, 0.9]] * len(means)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == NAMES
    assert axis.get_xscale() == "log"


def test_all_images_are_named_and_the_classes_that_are_too_small_counted(uneven):
    figure = draw_accuracies(uneven)
    figure.draw_without_rendering()
    (above,) = figure.axes[0].child_axes
    assert [tick.get_text() for tick in above.get_xticklabels()] == ["all 900 images, 90 per class"]
    note = figure.get_supxlabel()
    assert "3 of 10 classes have fewer than 5 images: all of theirs are used." in note
    assert "The encoder is the same at every point: it was trained on all training images." in note
    even = draw_accuracies(curve([(1, 10, 0), (5, 50, 0), (9, 86, 3)]))
    assert "classes have" not in even.get_supxlabel()


@pytest.mark.parametrize(
    "points",
    [
        [(1, 10, 0)],
        [(7, 70, 0)],
        [(3, 30, 0), (4, 38, 2)],
        [(20, 200, 0), (21, 203, 7)],
        [(1, 10, 0), (5000, 50000, 0)],
    ],
)
def test_the_words_are_inside_the_picture_and_cover_no_point(points):
    figure = draw_accuracies(curve(points))
    figure.draw_without_rendering()
    (axis,) = figure.axes
    (above,) = axis.child_axes
    page, plot = figure.bbox, axis.get_window_extent()
    words = [figure.legends[0], *above.get_xticklabels(), *figure.texts, figure._supxlabel]
    for word in words:
        place = word.get_window_extent()
        assert page.x0 <= place.x0
        assert place.x1 <= page.x1
        assert not place.overlaps(plot)
    low, high = axis.get_xlim()
    assert 1 <= sum(low <= tick <= high for tick in axis.get_xticks()) <= 14
