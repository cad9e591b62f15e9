import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supcon_pipeline.core.data.class_splits import (
    Search,
    describe_unseen,
    has_unseen_classes,
    split_by_class,
    split_classes,
)
from supcon_pipeline.core.data.splits import split_by_image
from supcon_pipeline.core.messages import InputError

TEN = np.repeat([f"class{number}" for number in range(10)], 4)


def classes_of(labels, chosen, split):
    return set(labels[chosen == split])


def test_whole_classes_are_held_out_as_many_as_asked_for():
    chosen = split_classes(TEN, 0.2, 0.3, 0)
    found = [classes_of(TEN, chosen, split) for split in ("train", "validation", "test")]
    assert [len(classes) for classes in found] == [5, 2, 3]
    assert len(set.union(*found)) == 10


def test_the_seed_draws_the_classes_and_nothing_else_does():
    first = split_classes(TEN, 0.2, 0.3, 0)
    assert np.array_equal(first, split_classes(TEN, 0.2, 0.3, 0))
    assert not np.array_equal(first, split_classes(TEN, 0.2, 0.3, 1))
    order = np.random.default_rng(0).permutation(len(TEN))
    assert np.array_equal(split_classes(TEN[order], 0.2, 0.3, 0), first[order])


@given(
    counts=st.lists(st.integers(1, 5), min_size=8, max_size=30),
    validation=st.floats(0.01, 0.45),
    test=st.floats(0.01, 0.45),
    seed=st.integers(0, 5),
)
def test_no_class_is_ever_in_two_splits_and_train_keeps_two(counts, validation, test, seed):
    counts = [max(2, count) if number < 6 else count for number, count in enumerate(counts)]
    labels = np.repeat(np.arange(len(counts)), counts)
    chosen = split_classes(labels, validation, test, seed)
    found = {split: classes_of(labels, chosen, split) for split in ("train", "validation", "test")}
    assert sum(map(len, found.values())) == len(counts)
    assert min(map(len, found.values())) >= 2
    # No image could be found for a class of one image.
    assert all(counts[label] > 1 for split in ("validation", "test") for label in found[split])


def test_splits_of_the_source_stay_and_missing_ones_are_held_out_of_train():
    splits = ["test" if name in ("class0", "class7") else "train" for name in TEN]
    chosen = split_classes(TEN, 0.3, 0.5, 0, splits)
    assert classes_of(TEN, chosen, "test") == {"class0", "class7"}
    # Of the eight that are left.
    assert len(classes_of(TEN, chosen, "validation")) == 2
    complete = np.where(np.isin(TEN, ["class1", "class2"]), "validation", splits).tolist()
    assert split_classes(TEN, 0.3, 0.5, 0, complete).tolist() == complete


def test_a_class_in_two_splits_of_the_source_is_refused():
    splits = ["train", "train", "train", "test"] * 10
    with pytest.raises(
        ValueError,
        match=r"every class must be in one split only with data_prep\.split_by=class, got 10 in several: "
        r"class0 in test and train; .*--params data_prep\.split_by=image",
    ):
        split_classes(TEN, 0.2, 0.2, 0, splits)


def test_too_few_classes_are_refused_with_what_to_do():
    with pytest.raises(
        ValueError,
        match=r"at least 6 in train to hold out whole classes \(2 for each of train, validation, test\), "
        r"got 5; .*--params data_prep\.split_by=image",
    ):
        split_classes(TEN[:20], 0.2, 0.2, 0)
    assert set(split_classes(TEN[:24], 0.9, 0.09, 0)) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("counts", "is_offered"),
    [
        # Of each class of train, test and both: of the last, whole classes cannot be held out.
        ((0, 0, 6), {"image"}),
        ((3, 0, 3), {"image"}),
        ((3, 3, 3), set()),
        ((0, 3, 6), set()),
        ((4, 3, 0), {"class"}),
        ((3, 3, 0), set()),
        ((6, 0, 0), {"class", "image"}),
        ((5, 0, 0), {"image"}),
    ],
)
@pytest.mark.parametrize("num_images", [2, 3, 4])
def test_the_other_way_to_split_is_suggested_only_where_it_is_one(counts, is_offered, num_images):
    given = [["train"] * num_images, ["test"] * num_images, ["train"] * num_images + ["test"]]
    names, splits = [], []
    for kind, count in enumerate(counts):
        for number in range(count):
            names += [f"{kind}-{number}"] * len(given[kind])
            splits += given[kind]
    samples = make_samples(names, splits)
    samples["duplicate_group"] = np.arange(len(samples))
    ways = {"image": split_by_image, "class": split_by_class}
    messages = {}
    for name, split in ways.items():
        try:
            split(samples, 0.2, 0.2, 0)
        except InputError as error:
            messages[name] = str(error)
    for name, message in messages.items():
        (other,) = ways.keys() - {name}
        assert (f"data_prep.split_by={other}" in message) == (other not in messages)
    if num_images == 4:
        assert ways.keys() - messages.keys() == is_offered


def make_samples(names, splits="train"):
    labels = np.unique(names, return_inverse=True)[1]
    return pd.DataFrame({"class_name": names, "label": labels, "split": splits})


def test_the_classes_of_train_have_the_first_numbers_in_their_order():
    samples = split_by_class(make_samples(TEN), 0.2, 0.3, 0)
    numbers = samples.drop_duplicates("class_name").set_index("class_name")
    in_train = numbers[numbers["split"] == "train"]["label"]
    assert in_train.tolist() == list(range(5))
    assert in_train.index.tolist() == sorted(in_train.index)
    assert sorted(numbers["label"]) == list(range(10))
    assert samples.groupby("class_name")["label"].nunique().eq(1).all()


class CountedName(str):
    """A class name that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other):
        CountedName.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_names_of_classes_are_compared_about_once_for_each_image():
    """As one with all others, a million images took hours."""
    names = np.array([CountedName(f"class {row % 50}") for row in range(2000)], dtype=object)
    splits = np.array(["train", "train", "validation", "test"] * 500)
    CountedName.comparisons = 0
    assert not has_unseen_classes(names, splits)
    assert CountedName.comparisons < 10 * len(names)


def test_classes_are_unseen_only_where_train_has_none_of_them():
    labels = np.array([0, 0, 1, 1, 2])
    assert has_unseen_classes(labels, np.array(["train", "train", "validation", "validation", "test"]))
    assert not has_unseen_classes(labels, np.array(["train", "validation", "train", "test", "test"]))
    assert not has_unseen_classes(labels, np.array(["train"] * 5))
    # An image that was removed from all splits is in none.
    assert has_unseen_classes(labels, np.array(["train", "train", "removed", "test", "test"]))


def test_what_was_held_out_is_told_with_the_classes_that_cannot_be_scored():
    samples = make_samples(
        ["a", "a", "b", "b", "c", "c", "d", "e", "e"], ["train"] * 4 + ["validation"] * 2 + ["test"] * 3
    )
    samples["duplicate_group"] = samples["id"] = range(len(samples))
    first, second = describe_unseen(samples)
    assert first.startswith(
        "train has none of the classes that are held out (1 of validation, 2 of test): images are searched"
    )
    assert second.startswith("1 held-out classes have one image")
    assert second.endswith(": d")
    assert describe_unseen(make_samples(["a", "a", "a"], ["train", "validation", "test"])) == []


def marked_samples():
    samples = make_samples(["a", "a", "b", "b", "b", "c", "c"], ["train"] * 2 + ["test"] * 5)
    roles = ["", "", "query", "gallery", "gallery", "query", "gallery"]
    return samples.assign(role=roles, duplicate_group=range(7))


def test_images_that_are_searched_for_and_cannot_be_found_are_told_of():
    def told(samples):
        samples = samples.assign(id=[f"image{row}" for row in range(len(samples))])
        return [text for text in describe_unseen(samples) if "not scored" in text]

    samples = marked_samples()
    assert told(samples) == []
    # Of its class the gallery has one of the same camera, of another a copy, of a third none.
    for change in (
        {"group": ["", "", "", "", "", "shop", "shop"]},
        {"duplicate_group": [0, 1, 2, 3, 4, 5, 5]},
        {"role": ["", "", "query", "gallery", "gallery", "query", "query"]},
    ):
        (text,) = told(samples.assign(**change))
        assert re.match(r"(1|2) images of test are searched for but not scored: .*: image5(, image6)?$", text)
    plain = samples.drop(columns="role").assign(duplicate_group=[0, 1, 2, 3, 4, 5, 5])
    assert [text[-14:] for text in told(plain)] == ["image5, image6"]


def test_queries_are_searched_in_the_gallery_where_a_source_marks_them():
    search = Search.of(marked_samples(), "test")
    assert (search.queries.tolist(), search.gallery.tolist()) == ([2, 5], [3, 4, 6])
    plain = Search.of(marked_samples().drop(columns="role"), "test")
    assert plain.queries.tolist() == plain.gallery.tolist() == [2, 3, 4, 5, 6]


def test_images_of_one_class_and_group_do_not_find_each_other_and_those_without_group_do():
    samples = marked_samples().assign(group=["", "", "shop", "shop", "other", "shop", ""])
    groups = Search.of(samples, "test").groups
    assert groups[2] == groups[3]
    assert len(set(groups)) == 6
    assert Search.of(marked_samples(), "test").exclusions[0].tolist() == list(range(7))


def test_a_gallery_needs_classes_that_train_lacks():
    with pytest.raises(ValueError, match=r"got query and gallery; mark .*--params data_prep\.split_by=class"):
        split_by_image(marked_samples(), 0.2, 0.2, 0)
