import math

import numpy as np
import pytest

from supcon_pipeline.core.metrics.label_errors import suspicious_labels


@pytest.fixture
def bundles(rng):
    """Three directions with 20 rows each, told apart with ease; every second row votes."""
    rows = np.eye(3, 5).repeat(20, axis=0) + rng.normal(scale=0.05, size=(60, 5))
    return rows.astype(np.float32), np.repeat([0, 1, 2], 20), np.arange(0, 60, 2)


def test_labels_that_were_changed_are_found_among_voters_and_others(bundles):
    rows, labels, voters = bundles
    changed = labels.copy()
    changed[[4, 27]] = [2, 0]
    found = suspicious_labels(rows, changed, voters, k=5, temperature=0.1, limit=10)
    assert sorted(zip(found["sample"].tolist(), found["suggested"].tolist(), strict=True)) == [
        (4, 0),
        (27, 1),
    ]
    assert (found["suspicion"] > 0.7).all()


def test_right_labels_are_not_suspicious(bundles):
    assert all(len(column) == 0 for column in suspicious_labels(*bundles, 5, 0.1, limit=10).values())


def test_the_suspicion_of_one_image_is_as_by_hand():
    # The last row's neighbours are the two above it, at a right angle and in its own direction.
    rows = np.array([[-1.0, 0], [0, 1], [1, 0], [1, 0]], dtype=np.float32)
    found = suspicious_labels(rows, np.array([0, 0, 1, 0]), np.array([0, 1, 2]), 2, temperature=0.5, limit=1)
    share = math.exp(2) / (math.exp(2) + 1)
    assert found["sample"].tolist() == [2]
    everyone = suspicious_labels(rows, np.array([0, 0, 1, 0]), np.array([0, 1, 2]), 2, 0.5, limit=9)
    suspicion = dict(zip(everyone["sample"].tolist(), everyone["suspicion"].tolist(), strict=True))
    assert suspicion == pytest.approx({2: 1.0, 3: share})


def test_the_most_suspicious_come_first_and_the_limit_holds(rng):
    rows, labels = rng.normal(size=(80, 3)).astype(np.float32), rng.integers(0, 3, 80)
    everyone = suspicious_labels(rows, labels, np.arange(60), 7, 0.2, limit=100)
    assert (np.diff(everyone["suspicion"]) <= 0).all()
    first = suspicious_labels(rows, labels, np.arange(60), 7, 0.2, limit=5)
    assert all(np.array_equal(first[name], everyone[name][:5]) for name in first)


def test_more_votes_than_other_voters_are_refused(bundles):
    with pytest.raises(ValueError, match="k must be from 1 to 29"):
        suspicious_labels(*bundles, 30, 0.1, limit=10)


def test_labels_of_some_images_are_found_as_if_all_had_been_checked(rng):
    rows, labels = rng.normal(size=(80, 3)).astype(np.float32), rng.integers(0, 3, 80)
    checked = np.arange(1, 80, 3)
    everyone = suspicious_labels(rows, labels, np.arange(60), 7, 0.2, limit=100)
    some = suspicious_labels(rows, labels, np.arange(60), 7, 0.2, limit=100, checked=checked)
    kept = np.isin(everyone["sample"], checked)
    assert all(np.array_equal(some[name], everyone[name][kept]) for name in some)
