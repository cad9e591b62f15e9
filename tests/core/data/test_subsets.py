import logging

import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.data.subsets import (
    LEFT_OUT,
    choose_paired,
    choose_points,
    limit_paired_splits,
    limit_rows,
    limit_splits,
)


def test_all_points_are_chosen_where_they_fit():
    assert choose_points(pd.Series(["a", "b", "a"]), 3, seed=0).tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 17, 50, 99])
def test_every_stratum_has_its_share_of_the_points(size):
    strata = pd.Series(np.repeat(["large", "middle", "small"], [70, 20, 10]))
    chosen = choose_points(strata, size, seed=3)
    assert len(chosen) == len(set(chosen)) == size
    assert np.array_equal(chosen, np.sort(chosen))
    counts = strata.iloc[chosen].value_counts()
    for name, share in (("large", 0.7), ("middle", 0.2), ("small", 0.1)):
        assert abs(counts.get(name, 0) - share * size) <= 1


def test_the_choice_depends_on_the_seed_alone_and_is_nested():
    strata = pd.Series(np.tile(["a", "b", "c", "d"], 50))
    first = choose_points(strata, 40, seed=0)
    assert np.array_equal(first, choose_points(strata, 40, seed=0))
    assert not np.array_equal(first, choose_points(strata, 40, seed=1))
    assert set(choose_points(strata, 20, seed=0)) <= set(first)


def test_rows_within_the_limit_are_all_taken_and_nothing_is_said(caplog):
    rows = np.array([3, 5, 8])
    with caplog.at_level(logging.INFO):
        assert limit_rows(rows, np.zeros(3), 3, 0, "rows", "limit") is rows
    assert not caplog.records


def test_rows_above_the_limit_are_drawn_by_the_seed_class_by_class_and_the_log_says_so_once(caplog):
    rows, labels = np.arange(100, 1300), np.repeat([0, 1, 2], [600, 400, 200])
    with caplog.at_level(logging.INFO):
        found = limit_rows(rows, labels, 60, 7, "test images are searched for", "evaluation.max_queries")
    assert np.bincount(labels[found - 100]).tolist() == [30, 20, 10]
    assert [record.getMessage() for record in caplog.records] == [
        "60 of 1,200 test images are searched for (evaluation.max_queries), drawn by seed 7"
    ]
    assert np.array_equal(found, limit_rows(rows, labels, 60, 7, "", ""))
    assert not np.array_equal(found, limit_rows(rows, labels, 60, 8, "", ""))


def test_splits_above_the_limit_lose_images_and_others_none():
    split = np.repeat(["train", "validation", "test"], [50, 30, 20])
    samples = pd.DataFrame({"split": split, "label": np.tile([0, 1], 50)})
    limited = limit_splits(samples, ("validation", "test"), 20, 0, "", "")
    assert limited["split"].value_counts().to_dict() == {
        "train": 50,
        "validation": 20,
        "test": 20,
        LEFT_OUT: 10,
    }
    assert limited["label"][limited["split"] == "validation"].value_counts().tolist() == [10, 10]
    # What was given is as it was.
    assert samples["split"].tolist() == split.tolist()


def paired(labels, copies, limit, seed=0):
    """The chosen rows, and how many pairs of one class and of two they make."""
    chosen = choose_paired(labels, copies, limit, seed)
    first, second = (chosen[places] for places in np.triu_indices(len(chosen), 1))
    is_pair = copies[first] != copies[second]
    is_match = labels[first] == labels[second]
    return chosen, (is_pair & is_match).sum(), (is_pair & ~is_match).sum()


@pytest.mark.parametrize("limit", [3, 4, 7, 40, 50, 99])
def test_what_is_drawn_to_be_paired_has_pairs_of_one_class_and_of_two(limit):
    one_each, lone = np.repeat(np.arange(50), 2), np.concatenate([[0, 0, 1, 1], np.arange(2, 98)])
    skewed = np.repeat([0, 1], [97, 3])
    for labels in (one_each, lone, skewed, np.tile(np.arange(5), 20)):
        # All images of class 0 but the last are copies of one another.
        copies = np.where(labels == 0, 0, np.arange(len(labels)))
        copies[np.flatnonzero(labels == 0)[-1]] = 1000
        for seed in range(5):
            chosen, num_matches, num_others = paired(labels, copies, limit, seed)
            assert np.array_equal(chosen, np.unique(chosen))
            assert len(chosen) == limit
            assert min(num_matches, num_others) > 0


def test_images_to_be_paired_are_drawn_in_proportion_beyond_the_first_pair_of_each_class():
    labels = np.repeat([0, 1, 2, *range(3, 103)], [600, 400, 200, *[1] * 100])
    counts = np.bincount(labels[choose_paired(labels, np.arange(1300), 130, 7)], minlength=103)
    assert abs(counts[:3] - [60, 40, 20]).max() <= 2
    assert abs(counts[3:].sum() - 10) <= 2


def test_the_choice_of_images_to_be_paired_depends_on_the_seed_alone_and_is_nested():
    labels, copies = np.tile(np.arange(50), 4), np.arange(200)
    first = choose_paired(labels, copies, 41, seed=0)
    assert np.array_equal(first, choose_paired(labels, copies, 41, seed=0))
    assert not np.array_equal(first, choose_paired(labels, copies, 41, seed=1))
    assert set(choose_paired(labels, copies, 20, seed=0)) <= set(first)
    assert choose_paired(labels, copies, 200, seed=0).tolist() == list(range(200))


def test_splits_that_are_paired_are_limited_each_and_the_log_says_so(caplog):
    split = np.repeat(["train", "validation", "test"], [50, 30, 20])
    samples = pd.DataFrame({"split": split, "label": np.arange(100) // 2, "duplicate_group": range(100)})
    with caplog.at_level(logging.INFO):
        limited = limit_paired_splits(samples, ("validation", "test"), 20, 3, "evaluation.max_compared")
    assert [record.getMessage() for record in caplog.records] == [
        "20 of 30 validation images are paired (evaluation.max_compared), drawn by seed 3"
    ]
    kept = limited[limited["split"] == "validation"]
    assert kept["label"].value_counts().tolist() == [2] * 10
    assert (limited["split"] == "test").sum() == 20
    assert samples["split"].tolist() == split.tolist()
