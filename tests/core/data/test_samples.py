import numpy as np
import pandas as pd
import pytest
from tests.core.data.tables import CLEAN, make_samples

from supcon_pipeline.core.data.images import LabelledImages, RawImages
from supcon_pipeline.core.data.pixels import channel_statistics
from supcon_pipeline.core.data.samples import (
    check_labels,
    check_rejected,
    check_splits,
    count_images,
    describe_warnings,
    tabulate_packed,
)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 0], ["cat"], "images must be of at least 2 classes, got cat;"),
        ([0, 1], ["cat", "dog", "fox"], r"classes must be at most as many as images \(2\), got 3;"),
        ([0, 0, 2], ["cat", "dog", "fox"], "every class must have images, got none of dog;"),
    ],
)
def test_what_cannot_be_learned_is_refused(labels, names, message):
    with pytest.raises(ValueError, match=message):
        check_labels(np.array(labels), names)


def test_rejected_images_are_accepted_up_to_the_limit_and_then_named():
    rejected = pd.DataFrame(
        {"id": list("abcd"), "class_name": "cat", "split": "train", "reason": "cut short"}
    )
    packed = pd.DataFrame({"class_name": ["cat", "dog"], "split": "train"})
    check_rejected(rejected, packed, 4)
    with pytest.raises(
        ValueError,
        match=r"at most 3, got 4: a \(cut short\), b \(cut short\), c \(cut short\), and others; .*"
        "--params data_prep.max_rejected=4",
    ):
        check_rejected(rejected, packed, 3)


def test_a_class_without_an_image_that_can_be_decoded_is_refused_within_the_limit():
    rejected = pd.DataFrame({"id": ["a", "b"], "class_name": ["cat", "fox"], "reason": "cut short"})
    with pytest.raises(ValueError, match=r"image that can be decoded, got none of fox; rejected_images"):
        check_rejected(rejected, pd.DataFrame({"class_name": ["cat", "dog"]}), 2)


def test_a_split_without_an_image_that_can_be_decoded_is_refused_within_the_limit():
    rejected = pd.DataFrame({"id": ["a"], "class_name": "cat", "split": "test", "reason": "cut short"})
    packed = pd.DataFrame({"class_name": ["cat", "dog"], "split": ["train", "validation"]})
    with pytest.raises(ValueError, match=r"every split must have an image .*, got none of test"):
        check_rejected(rejected, packed, 1)


def test_a_split_that_is_empty_because_all_images_are_the_same_is_refused():
    check_splits(make_samples(CLEAN))
    rows = [(name, label, "train", "same") for name, label, *_ in CLEAN]
    with pytest.raises(ValueError, match="validation must have images, got none: of 12 images only 1 differ"):
        check_splits(make_samples(rows))


@pytest.mark.parametrize("splits", [None, ["test", "train", "train", "test"]])
def test_rejected_rows_are_found_by_position_and_not_by_id(splits):
    images = [np.zeros((1, 1), np.uint8)] * 4
    ids = ["a", "b", "a\r", "c"]
    raw = RawImages(images, np.array([1, 0, 1, 0]), ["cat", "dog"], ids, "made up", splits)
    packed, rejected = tabulate_packed(raw, [(0, "cut short"), (3, "empty")])
    assert packed.to_dict("list") == {
        "id": ["b", r"a\r"], "split": ["train", "train"], "label": [0, 1], "class_name": ["cat", "dog"],
        "source": ["made up"] * 2,
    }  # fmt: skip
    assert packed.index.tolist() == [0, 1]
    assert rejected.to_dict("list") == {
        "id": ["a", "c"], "class_name": ["dog", "cat"],
        "split": [splits[0], splits[3]] if splits else ["train"] * 2, "reason": ["cut short", "empty"],
    }  # fmt: skip


def test_images_are_counted_in_the_order_of_the_labels():
    rows = {
        "split": ["test", "train", "train", "validation"],
        "class_name": list("baba"),
        "label": [0, 1, 0, 1],
    }
    assert count_images(pd.DataFrame(rows)) == {
        "train": {"b": 1, "a": 1}, "validation": {"b": 0, "a": 1}, "test": {"b": 1, "a": 0},
    }  # fmt: skip
    assert list(count_images(pd.DataFrame(rows))["train"]) == ["b", "a"]


def test_clean_samples_give_no_warning():
    assert describe_warnings(make_samples(CLEAN)) == []


def test_what_was_left_out_is_reported():
    found = describe_warnings(make_samples(CLEAN), 2, {".txt files": 3, "hidden": 1})
    assert found == [
        "2 images could not be decoded; rejected_images says why",
        "not taken from the source: 3 .txt files, 1 hidden",
    ]


@pytest.mark.parametrize(("num_bits", "is_dark"), [(10, True), (12, True), (14, False), (16, False)])
def test_deep_images_that_use_a_part_of_their_range_give_a_warning_if_they_are_nearly_black(
    num_bits, is_dark, rng
):
    pixels = (rng.integers(0, 2**num_bits, (4, 8, 8, 1)) / 257).round().astype(np.uint8)
    mean, std = channel_statistics(pixels)
    found = describe_warnings(make_samples(CLEAN), brightness=mean[0] + std[0])
    expected = "the training images are nearly black, hardly brighter than "
    assert [text[: len(expected)] for text in found] == ([expected] if is_dark else [])


def test_an_image_in_two_classes_gives_a_warning():
    rows = [*CLEAN, ("dog/again", "dog", "train", "cattrain0")]
    assert describe_warnings(make_samples(rows)) == [
        "2 images are in more than one class: cat/train0, dog/again"
    ]


def test_a_class_that_is_not_scored_gives_a_warning():
    rows = [row for row in CLEAN if row[1:3] != ("dog", "test")]
    assert describe_warnings(make_samples(rows)) == ["1 classes have no image in test: dog"]


def test_the_category_of_an_image_goes_from_the_source_to_its_sample_and_to_training():
    images = [np.zeros((2, 2), np.uint8)] * 3
    raw = RawImages(
        images, np.array([0, 1, 1]), ["cat", "dog"], ["a", "b", "c"], "x", categories=["k", "l", ""]
    )
    packed, _ = tabulate_packed(raw, [(1, "empty")])
    assert packed["category"].tolist() == ["k", ""]
    found = LabelledImages.of(np.zeros((2, 2, 2, 1), np.uint8), packed)
    assert found.categories.tolist() == ["k", ""]
    assert LabelledImages.of(found.images, packed.drop(columns="category")).categories is None
