import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from supcon_pipeline.core.figures.image_grids import (
    choose_queries,
    draw_pairs,
    draw_retrieval,
    draw_suspicious,
)
from supcon_pipeline.core.figures.marks import RIGHT, WRONG

LABELS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
SAMPLES = pd.DataFrame(
    {
        "id": [f"image-{index}" for index in range(8)],
        "label": LABELS,
        "class_name": np.array(["ant", "bee"])[LABELS],
    }
)
# Queries 4 to 7 among the references 0 to 3; 4 and 6 are right, 5 has one of two right, 7 has none.
NEIGHBOURS = pd.DataFrame(
    {
        "query": [4, 4, 5, 5, 6, 6, 7, 7],
        "rank": [0, 1] * 4,
        "reference": [0, 1, 2, 0, 3, 1, 0, 1],
        "similarity": [0.9, 0.8, 0.99, 0.7, 0.6, 0.5, 0.4, 0.3],
    }
)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)


def test_the_worst_failures_are_those_whose_references_agree_least():
    right, wrong = choose_queries(NEIGHBOURS, LABELS, num_right=5, num_wrong=5, seed=0).values()
    assert (right, wrong) == ([4, 6], [7, 5])


def test_of_equal_failures_the_nearest_comes_first():
    neighbours = NEIGHBOURS[NEIGHBOURS["rank"] == 0]
    _, wrong = choose_queries(neighbours, LABELS, num_right=1, num_wrong=2, seed=0).values()
    assert wrong == [5, 7]


def test_where_all_are_right_none_is_shown_as_wrong():
    neighbours = NEIGHBOURS[NEIGHBOURS["query"].isin([4, 6])]
    queries = choose_queries(neighbours, LABELS, num_right=5, num_wrong=5, seed=0)
    assert queries == {
        "2 of the 2 test images whose nearest neighbour is right": [4, 6],
        "the worst of the 0 whose nearest neighbour is wrong": [],
    }


def test_where_none_is_right_the_worst_are_shown_alone():
    neighbours = NEIGHBOURS[NEIGHBOURS["query"].isin([5, 7])]
    queries = choose_queries(neighbours, LABELS, num_right=5, num_wrong=1, seed=0)
    assert queries == {
        "0 of the 0 test images whose nearest neighbour is right": [],
        "the worst of the 2 whose nearest neighbour is wrong": [7],
    }


def test_the_right_ones_are_drawn_by_the_seed():
    neighbours = pd.DataFrame({"query": range(100), "rank": 0, "reference": range(100), "similarity": 1.0})

    def drawn(seed):
        return next(iter(choose_queries(neighbours, np.zeros(100, int), 5, 5, seed).values()))

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert len(drawn(0)) == 5


def cells(figure):
    return [axis for fold in figure.subfigs for axis in fold.axes]


def test_frames_and_signs_tell_right_from_wrong(images):
    figure = draw_retrieval(images, SAMPLES, NEIGHBOURS, {"right": [4], "wrong": [5]}, num_references=2)
    titles = [axis.get_title() for axis in cells(figure)]
    assert titles == [
        "query\nant", "✓ 0.900\nant", "✓ 0.800\nant",
        "query\nant", "✗ 0.990\nbee", "✓ 0.700\nant",
    ]  # fmt: skip
    frames = [axis.spines["left"] for axis in cells(figure)]
    colors = [to_hex(frame.get_edgecolor()).upper() if frame.get_visible() else None for frame in frames]
    assert colors == [None, RIGHT, RIGHT, None, WRONG, RIGHT]
    shown = [axis.images[0].get_array() for axis in cells(figure)]
    assert all(np.array_equal(a, images[b]) for a, b in zip(shown, [4, 0, 1, 5, 2, 0], strict=True))
    figure.draw_without_rendering()


def test_a_part_without_queries_is_left_out(images):
    figure = draw_retrieval(images, SAMPLES, NEIGHBOURS, {"right": [4], "wrong": []}, num_references=1)
    assert [fold.get_suptitle() for fold in figure.subfigs] == ["right"]
    assert len(cells(figure)) == 2


def test_the_suspicious_are_shown_in_their_order_with_both_classes(images):
    table = SAMPLES.iloc[[3, 0, 6]].reset_index(drop=True)
    table = table.assign(sample=[3, 0, 6], split="train", suggested_class="cat", suspicion=[0.9, 0.8, 0.1])
    figure = draw_suspicious(images, table, num_shown=2)
    assert [axis.get_title() for axis in figure.axes] == ["label bee\nlike cat", "label ant\nlike cat"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["0.90, train\nimage-3", "0.80, train\nimage-0"]
    assert np.array_equal(figure.axes[0].images[0].get_array(), images[3])
    assert "the 2 images that look most like another class" in figure.get_suptitle()


def test_no_suspicion_and_gray_images_are_drawn_too(images):
    empty = SAMPLES.head(0).assign(sample=0, split="", suggested_class="", suspicion=0.0)
    title = draw_suspicious(images, empty, num_shown=4).get_suptitle()
    assert title == "Labels to check: no image looks more like another class than like its own"
    gray = draw_retrieval(images[..., :1], SAMPLES, NEIGHBOURS, {"right": [4]}, num_references=1)
    assert cells(gray)[0].images[0].get_array().shape == (4, 4)


def suspicious(num_images):
    rows = np.arange(num_images) % 8
    table = SAMPLES.iloc[rows].assign(sample=rows, split="train", suggested_class="cat", suspicion=0.5)
    return table.reset_index(drop=True)


@pytest.mark.parametrize("num_images", [0, 1, 2, 24])
def test_the_title_of_the_suspicious_is_whole(images, num_images):
    figure = draw_suspicious(images, suspicious(num_images), num_shown=24)
    figure.draw_without_rendering()
    title = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 < title.x0 < title.x1 < figure.bbox.x1
    assert "1 images" not in figure.get_suptitle()


def test_a_caption_is_nearer_to_its_image_than_to_the_next_row(images):
    figure = draw_suspicious(images, suspicious(16), num_shown=16)
    figure.draw_without_rendering()
    above, below = figure.axes[0], figure.axes[8]
    caption = above.xaxis.label.get_window_extent()
    to_image, to_next = above.bbox.y0 - caption.y1, caption.y0 - below.title.get_window_extent().y1
    assert 0 <= to_image < to_next


def test_a_name_with_dollar_signs_is_no_formula(images):
    samples = SAMPLES.assign(class_name=np.array(["$\\frac$", "$5 to $10"])[LABELS])
    draw_retrieval(images, samples, NEIGHBOURS, {"right": [4]}, num_references=2).draw_without_rendering()
    table = samples.head(2).assign(
        sample=[3, 0], split="train", suggested_class="$\\alpha", suspicion=0.9, id="$\\frac$.png"
    )
    draw_suspicious(images, table, num_shown=2).draw_without_rendering()


def test_pairs_of_near_duplicates_in_two_splits_or_classes_come_first_and_are_framed(images):
    splits = ["train", "test", "train", "train", "train", "train", "train", "train"]
    pairs = pd.DataFrame({"first": [4, 0, 2], "second": [5, 1, 4], "similarity": [0.99, 0.98, 0.97]})
    figure = draw_pairs(images, SAMPLES.assign(split=splits), pairs, num_shown=5)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown[:2]] == ["0.980, train", "0.980, test"]
    assert [axis.get_xlabel() for axis in shown[2:4]] == ["bee\nimage-2", "ant\nimage-4"]
    assert [axis.spines["top"].get_visible() for axis in shown] == [True] * 4 + [False] * 2
    assert np.array_equal(shown[4].images[0].get_array(), images[4])
    assert "3 of 3 pairs" in figure.get_suptitle()


def test_without_near_duplicates_their_gallery_says_so(images):
    pairs = pd.DataFrame({"first": [], "second": [], "similarity": []}, dtype=object)
    figure = draw_pairs(images, SAMPLES.assign(split="train"), pairs, num_shown=5)
    assert figure.get_suptitle().startswith("No near-duplicates were found or looked for")
