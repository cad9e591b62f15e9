import logging

import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.data.subsets import LEFT_OUT, choose_points, limit_rows, limit_splits


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
