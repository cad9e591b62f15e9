import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.data.tables import CLEAN, make_samples

from supcon_pipeline.core.data.samples import (
    describe_warnings,
)
from supcon_pipeline.core.data.splits import handle_leakage, keep_together, split_samples


@pytest.mark.parametrize("given", [("train",), ("train", "test"), ("train", "validation")])
def test_splits_of_the_source_stay_and_those_it_lacks_are_held_out_of_train(given):
    labels = np.tile(np.repeat(["cat", "dog"], 20), len(given))
    splits = np.repeat(given, 40)
    chosen = split_samples(labels, 0.1, 0.2, 0, splits)
    for name in given[1:]:
        assert np.array_equal(chosen == name, splits == name)
    for label in ("cat", "dog"):
        counts = {name: int(((labels == label) & (chosen == name)).sum()) for name in set(chosen)}
        held = {"validation": 20 if "validation" in given else 2, "test": 20 if "test" in given else 4}
        lost = (0 if "validation" in given else 2) + (0 if "test" in given else 4)
        assert counts == {"train": 20 - lost, **held}


def test_a_source_with_all_splits_is_taken_as_it_is():
    splits = ["train", "train", "validation", "test"] * 2
    assert split_samples(np.repeat([0, 1], 4), 0.1, 0.2, 0, splits).tolist() == splits


@pytest.mark.parametrize(
    ("labels", "splits", "message"),
    [
        (
            ["cat"] * 4 + ["dog"] * 2,
            ["train", "train", "validation", "test", "test", "validation"],
            "every class must be in train, got dog in test and validation only;",
        ),
        (
            ["cat"] * 4 + ["dog"] * 3,
            ["train", "train", "validation", "test", "train", "validation", "test"],
            r"at least 2 samples in train \(a pair to learn from\), got 1 of class dog; add images or remove",
        ),
        (
            ["cat"] * 4 + ["dog"],
            None,
            r"at least 4 samples in train \(a pair .*, 1 for test, 1 for validation\), got 1 of class dog;",
        ),
        (
            ["cat"] * 4 + ["dog"] * 2,
            ["train", "train", "train", "test", "train", "test"],
            r"at least 3 samples in train \(a pair .*, 1 for validation\), got 1 of class dog",
        ),
    ],
)
def test_a_class_that_cannot_be_split_is_refused(labels, splits, message):
    with pytest.raises(ValueError, match=message):
        split_samples(np.array(labels), 0.2, 0.2, 0, splits)


LEAKING = [*CLEAN, ("cat/again", "cat", "train", "cattest0"), ("dog/again", "dog", "train", "dogvalidation1")]


def test_an_image_of_train_in_test_or_validation_is_refused():
    with pytest.raises(
        ValueError,
        match=r"got 2 that are: cat/again \(as .*/.*\), dog/again \(as .*/.*\); .*"
        r"data_prep\.on_leakage=remove",
    ):
        handle_leakage(make_samples(LEAKING), "refuse")
    assert handle_leakage(make_samples(CLEAN), "refuse").equals(make_samples(CLEAN))


def test_it_is_removed_from_train_or_reported():
    samples = make_samples(LEAKING)
    removed = handle_leakage(samples, "remove")
    assert removed["split"].tolist()[:-2] == samples["split"].tolist()[:-2]
    assert removed["split"].tolist()[-2:] == ["removed", "removed"]
    assert handle_leakage(samples, "report").equals(samples)
    assert "2 images removed from train or validation: cat/again, dog/again" in describe_warnings(removed)
    assert "2 images of train are in validation or test: cat/again, dog/again" in describe_warnings(samples)


def test_an_image_of_validation_that_is_in_test_is_refused_removed_or_reported():
    samples = make_samples([*CLEAN, ("cat/again", "cat", "validation", "cattest0")])
    with pytest.raises(
        ValueError, match=r"nor those of validation in test, got 1 that are: cat/again \(as cat/test0\); "
    ):
        handle_leakage(samples, "refuse")
    removed = handle_leakage(samples, "remove")
    assert removed["split"].tolist() == [*samples["split"].tolist()[:-1], "removed"]
    assert handle_leakage(removed, "refuse").equals(removed)
    assert describe_warnings(samples) == ["1 images of validation are in test: cat/again"]


def test_an_image_in_all_splits_stays_in_test_alone():
    rows = [*CLEAN, ("cat/twice", "cat", "train", "cattest0"), ("cat/again", "cat", "validation", "cattest0")]
    removed = handle_leakage(make_samples(rows), "remove")
    assert removed.loc[removed["pixel_hash"] == "cattest0", "split"].tolist() == [
        "test",
        "removed",
        "removed",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("dog/train1", "dog", "train", "dogtest0"),
            "removed, got 1 of class dog; add images, remove the class",
        ),
        (
            ("cat/validation0", "cat", "validation", "cattest0"),
            "validation must have images .*, got none; add",
        ),
    ],
)
def test_removing_may_not_leave_too_little(row, message):
    rows = [row if known[0] == row[0] else known for known in CLEAN]
    # Validation is down to the one image.
    rows = [known for known in rows if known[2] != "validation" or known[0] in ("cat/validation0", row[0])]
    with pytest.raises(ValueError, match=message):
        handle_leakage(make_samples(rows), "remove")
    # Nor is it suggested.
    with pytest.raises(ValueError, match=r"new run, or add --params data_prep\.on_leakage=report"):
        handle_leakage(make_samples(rows), "refuse")
    assert len(handle_leakage(make_samples(rows), "report")) == len(rows)


def test_removing_does_not_refuse_a_class_that_was_small_before():
    rows = [row for row in CLEAN if row[0] != "dog/train1"] + [("cat/again", "cat", "train", "cattest0")]
    assert handle_leakage(make_samples(rows), "remove")["split"].tolist()[-1] == "removed"


def test_every_class_is_split_by_the_same_shares():
    labels = np.repeat([0, 1, 2], [40, 100, 60])
    splits = split_samples(labels, 0.2, 0.1, seed=0)
    for label, count in enumerate([40, 100, 60]):
        shares = {split: np.mean(splits[labels == label] == split) for split in set(splits)}
        assert shares == pytest.approx({"train": 0.7, "validation": 0.2, "test": 0.1}, abs=1 / count)


def test_the_split_depends_on_the_seed_alone():
    labels = np.tile([0, 1], 50)
    first = split_samples(labels, 0.2, 0.2, seed=3)
    assert np.array_equal(first, split_samples(labels.copy(), 0.2, 0.2, seed=3))
    assert not np.array_equal(first, split_samples(labels, 0.2, 0.2, seed=4))


@pytest.mark.parametrize("given", [None, "test"])
@pytest.mark.parametrize(
    "names", [np.arange(30), np.array([f"class {index}" for index in range(30)], object)]
)
def test_the_split_is_that_of_looking_for_each_class_in_all_labels(rng, names, given):
    labels = names[rng.permutation(np.repeat(np.arange(30), rng.integers(12, 60, 30)))]
    splits = None if given is None else np.where(rng.random(len(labels)) < 0.2, given, "train").tolist()
    expected = np.array(splits or ["train"] * len(labels), dtype=object)
    generator = np.random.default_rng(4)
    for name in sorted(set(labels)):
        order = generator.permutation(
            [i for i in range(len(labels)) if labels[i] == name and expected[i] == "train"]
        )
        num_test = 0 if given else round(0.3 * len(order))
        expected[order[:num_test]] = "test"
        expected[order[num_test : num_test + round(0.2 * len(order))]] = "validation"
    assert split_samples(labels, 0.2, 0.3, 4, splits).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_class_of_four_samples_has_a_pair_to_train_on_and_one_in_each_other_split(seed):
    labels = np.repeat([0, 1], [97, 4])
    splits = split_samples(labels, 0.1, 0.1, seed)
    assert sorted(splits[labels == 1]) == ["test", "train", "train", "validation"]


def test_a_class_of_three_samples_is_refused():
    with pytest.raises(ValueError, match=r"at least 4 samples in train .*, got 3 of class 7"):
        split_samples(np.array([0] * 20 + [7] * 3), 0.2, 0.2, seed=0)


@pytest.mark.parametrize("count", [4, 5, 7])
@pytest.mark.parametrize(("validation", "test"), [(0.05, 0.3), (0.3, 0.05), (0.48, 0.48), (0.9, 0.05)])
def test_every_class_is_in_every_split_however_small_the_share(count, validation, test):
    labels = np.repeat(np.arange(4), count)
    splits = split_samples(labels, validation, test, seed=0)
    for label in range(4):
        assert set(splits[labels == label]) == {"train", "validation", "test"}
        assert (splits[labels == label] == "train").sum() >= 2


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (0.7, 0.4)])
def test_shares_that_leave_nothing_to_train_on_are_refused(validation, test):
    with pytest.raises(
        ValueError, match=r"validation_fraction \+ test_fraction must be below 1, got 1\.[01]"
    ):
        split_samples(np.repeat(np.arange(4), 10), validation, test, seed=0)


def test_identical_images_that_are_held_out_go_where_the_first_of_them_is():
    chosen = ["test", "train", "validation", "test", "validation", "test", "test"]
    hashes = ["a", "a", "b", "b", "c", "d", "d"]
    together = ["train", "train", "validation", "validation", "validation", "test", "test"]
    assert keep_together(chosen, hashes).tolist() == together


def test_what_the_source_has_put_into_a_split_stays_there():
    chosen = ["test", "train", "validation", "train", "validation"]
    splits = ["test", "train", "train", "train", "train"]
    # The first two are one image, which stays a leak; the last three another, which the source had in train.
    assert keep_together(chosen, list("aabbb"), splits).tolist() == [
        "test",
        "train",
        "train",
        "train",
        "train",
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=12, max_size=40), st.integers(0, 9))
def test_a_split_that_keeps_identical_images_together_leaks_nothing(images, seed):
    labels = np.array([label for label, _ in images] + [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    hashes = [str(pixels) for _, pixels in images] + [f"own {index}" for index in range(12)]
    chosen = split_samples(labels, 0.2, 0.2, seed)
    splits = pd.Series(keep_together(chosen, hashes))
    assert len(set(zip(hashes, splits, strict=True))) == len(set(hashes))
    is_alone = ~pd.Series(hashes).duplicated(keep=False)
    assert (splits == chosen)[is_alone].all()
    # No class loses an image of train.
    assert (splits[chosen == "train"] == "train").all()


def make_near(rows):
    """Samples of which the last is a near-duplicate of the first test image of cats."""
    samples = make_samples(rows)
    twin = samples.index[samples["pixel_hash"] == "cattest0"][0]
    samples.loc[len(samples) - 1, "duplicate_group"] = samples.loc[twin, "duplicate_group"]
    return samples


NEAR = [*CLEAN, ("cat/brighter", "cat", "train", "other pixels")]


def test_a_near_duplicate_in_a_later_split_is_refused_by_name_with_the_way_to_let_it_be():
    with pytest.raises(
        ValueError,
        match=r"got 1 that are: cat/brighter \(like cat/test0\); delete .*on_leakage=remove.*; 1 of them are "
        r"near-duplicates .*data_prep\.near_duplicate_similarity=null",
    ):
        handle_leakage(make_near(NEAR), "refuse")
    assert handle_leakage(make_near(NEAR), "report")["split"].tolist()[-1] == "train"
    removed = handle_leakage(make_near(NEAR), "remove")
    assert (removed["split"] == "removed").tolist() == [False] * len(CLEAN) + [True]


def test_the_warnings_tell_near_duplicates_from_identical_images():
    found = describe_warnings(make_near(NEAR))
    assert found == ["1 images of train look nearly the same as one in validation or test: cat/brighter"]
    others = describe_warnings(make_near([*CLEAN, ("dog/brighter", "dog", "test", "other pixels")]))
    assert others == ["2 images look nearly the same as one of another class: cat/test0, dog/brighter"]


def test_images_that_were_not_kept_together_because_they_are_too_many_are_told():
    pairs = pd.DataFrame({"first": [0, 1], "second": [1, 2]})
    found = describe_warnings(make_samples(CLEAN), near_duplicates=pairs)
    assert found[0].startswith("3 images look nearly the same as very many others")


def test_duplicates_are_drawn_as_one_so_that_the_shares_stay():
    # Every image three times: were each drawn on its own, hardly any group would be wholly in test.
    labels, groups = np.tile(np.repeat([0, 1], 50), 3), np.tile(np.arange(100), 3)
    chosen = keep_together(split_samples(labels, 0.2, 0.2, 0, groups=groups), groups)
    assert pd.Series(chosen).groupby(groups).nunique().max() == 1
    assert pd.Series(chosen).value_counts().to_dict() == {"train": 180, "validation": 60, "test": 60}


def test_without_duplicates_groups_change_no_split():
    labels = np.repeat([0, 1, 2], 20)
    expected = split_samples(labels, 0.2, 0.2, 3)
    assert np.array_equal(split_samples(labels, 0.2, 0.2, 3, groups=np.arange(60)[::-1]), expected)


def test_a_class_of_fewer_photographs_than_splits_is_still_in_train():
    labels, groups = np.repeat([0, 1], 8), np.r_[np.zeros(8, int), 1:9]
    chosen = keep_together(split_samples(labels, 0.2, 0.2, 0, groups=groups), groups)
    assert set(chosen[:8]) == {"train"}
    assert set(chosen[8:]) == {"train", "validation", "test"}
