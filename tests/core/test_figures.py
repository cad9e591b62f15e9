from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from supcon_pipeline.core.figures import (
    class_colors,
    draw_confusion,
    draw_curves,
    draw_lr_curve,
    draw_tsne,
    tsne_map,
)


def is_png(figure):
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=30)
    return buffer.getvalue().startswith(b"\x89PNG")


def texts(axis):
    return [text.get_text() for text in axis.texts]


@pytest.fixture
def bundles(rng):
    """Three directions with 12 rows each, of any length."""
    directions = np.eye(3, 5).repeat(12, axis=0) + rng.normal(scale=0.02, size=(36, 5))
    return directions * rng.uniform(0.1, 10, (36, 1))


def test_the_map_keeps_bundles_of_embeddings_together(bundles):
    coordinates = tsne_map(bundles, perplexity=10, num_iterations=1000, seed=0, num_jobs=1)
    labels = np.repeat([0, 1, 2], 12)
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert coordinates.shape == (36, 2)
    assert np.array_equal(labels[distances.argmin(axis=1)], labels)


def test_the_map_depends_on_the_seed_and_not_on_the_length_of_the_rows(bundles):
    def tsne(rows, seed):
        return tsne_map(rows, perplexity=5, num_iterations=250, seed=seed, num_jobs=1)

    # Powers of two scale without rounding.
    lengths = 2.0 ** np.arange(-18, 18)[:, None]
    first = tsne(bundles, 0)
    assert np.array_equal(first, tsne(bundles * lengths, 0))
    # The C library takes 0 and 1 for the same seed.
    assert not np.array_equal(first, tsne(bundles, 2))


def test_the_largest_seed_gives_a_map(bundles):
    # The largest that the parameters admit, which no C int holds.
    coordinates = tsne_map(bundles, perplexity=5, num_iterations=250, seed=2**32 - 1, num_jobs=1)
    assert np.ptp(coordinates, axis=0).min() > 1


def test_a_perplexity_too_large_for_the_images_is_refused():
    with pytest.raises(ValueError, match=r"perplexity must be below a third .*, got 5 for 16; lower it"):
        tsne_map(np.eye(16), perplexity=5, num_iterations=250, seed=0, num_jobs=1)


@pytest.mark.parametrize("num_classes", [1, 2, 8, 9, 10, 11, 40])
def test_every_class_has_a_colour_of_its_own(num_classes):
    assert len({to_hex(color) for color in class_colors(num_classes)}) == num_classes


def points_of(coordinates, labels, splits, model="supcon"):
    x, y = np.asarray(coordinates).T
    return pd.DataFrame({"model": model, "split": splits, "label": labels, "x": x, "y": y})


def test_the_map_is_drawn_with_a_row_for_each_model_a_panel_for_each_split_and_a_name_for_each_class(rng):
    coordinates, labels = rng.normal(size=(2, 9, 2)), np.array([0, 1, 2] * 3)
    splits = np.repeat(["train", "test", "validation"], [5, 2, 2])
    models = ["supcon", "baseline"]
    parts = [points_of(xy, labels, splits, model) for xy, model in zip(coordinates, models, strict=True)]
    figure = draw_tsne(pd.concat(parts), ["ant", "bee", "cat"])
    panels = [
        (row, model, split) for row, model in enumerate(models) for split in ("train", "validation", "test")
    ]
    for axis, (row, model, split) in zip(figure.axes, panels, strict=True):
        chosen = coordinates[row][splits == split]
        assert axis.get_title() == f"{model}, {split} ({len(chosen)} images)"
        assert np.array_equal(axis.collections[0].get_offsets(), chosen)
    names = [["ant", "bee", "cat"], ["bee", "cat"], ["ant", "cat"]]
    assert [texts(axis) for axis in figure.axes] == names * 2
    assert is_png(figure)


def test_the_points_of_a_class_have_its_colour_and_its_name_is_at_their_median():
    coordinates = [[0.0, 0], [1, 1], [2, 8], [5, 5]]
    figure = draw_tsne(points_of(coordinates, [1, 1, 1, 0], "test"), ["ant", "bee"])
    (axis,) = figure.axes
    ant, bee = class_colors(2)
    assert [to_hex(color) for color in axis.collections[0].get_facecolors()] == [
        to_hex(color) for color in (bee, bee, bee, ant)
    ]
    assert {text.get_text(): tuple(text.xy) for text in axis.texts} == {"ant": (5, 5), "bee": (1, 1)}


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
    assert is_png(figure)


def test_the_confusion_of_many_classes_has_no_counts_and_a_bounded_size():
    names = [str(index) for index in range(100)]
    figure = draw_confusion(np.eye(100, dtype=int), names)
    assert texts(figure.axes[0]) == []
    assert max(figure.get_size_inches()) <= 25
    assert is_png(figure)


def test_the_curves_of_each_stage_are_in_a_column_of_their_own():
    first = {"epoch": [1, 2], "loss": [3.0, 2.0], "lr": [0.1, 0.05], "embedding.ami": [0.2, 0.4]}
    second = {"epoch": [1, 2, 3], "loss": [1.0, 0.9, 0.8], "lr": [0.3, 0.2, 0.1], "accuracy": [0.5, 0.6, 0.7]}
    first, second = {**first, "collapse_loss": [4.0, 4.5]}, {**second, "collapse_loss": [None] * 3}
    figure = draw_curves({"stage 1": pd.DataFrame(first), "stage 2": pd.DataFrame(second)})
    above = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(above) == ["stage 1", "stage 2"]
    drawn = {line.get_label(): line.get_ydata().tolist() for axis in figure.axes[2:4] for line in axis.lines}
    assert drawn == {"embedding.ami": [0.2, 0.4], "accuracy": [0.5, 0.6, 0.7]}
    assert above["stage 1"].lines[0].get_ydata().tolist() == [3.0, 2.0]
    # The loss of a collapsed encoder is drawn where there is one.
    assert above["stage 1"].lines[1].get_ydata().tolist() == [4.0, 4.5]
    assert [len(above[title].lines) for title in above] == [2, 1]
    assert above["stage 2"].lines[0].get_xdata().tolist() == [1, 2, 3]
    rates = [
        axis.lines[0].get_ydata().tolist() for axis in figure.axes if axis.get_ylabel() == "learning rate"
    ]
    assert rates == [[0.1, 0.05], [0.3, 0.2, 0.1]]
    assert is_png(figure)


def test_the_learning_rates_are_drawn_with_the_suggestion():
    curve = pd.DataFrame({"lr": [0.01, 0.1, 1.0], "loss": [3.0, 1.0, 2.0], "smoothed_loss": [3.0, 2.0, 2.5]})
    figure = draw_lr_curve(curve, {"suggested_lr": 0.01, "lowest_lr": 0.1})
    (axis,) = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_data()).tolist() for line in axis.lines}
    assert drawn["loss of each step"] == [[0.01, 0.1, 1.0], [3.0, 1.0, 2.0]]
    assert drawn["smoothed"] == [[0.01, 0.1, 1.0], [3.0, 2.0, 2.5]]
    assert (drawn["suggested: 0.01"][0], drawn["lowest: 0.1"][0]) == ([0.01] * 2, [0.1] * 2)
    assert axis.get_xscale() == "log"
    assert is_png(figure)
