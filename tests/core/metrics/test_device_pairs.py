"""Counting pairs as on a GPU is counting with numpy; where there is no GPU, the CPU stands in for it."""

import numpy as np
import pytest
import torch
from tests.core.metrics.angles import at_degrees

from supcon_pipeline.core.metrics.device_pairs import _PairCounter
from supcon_pipeline.core.metrics.verification import count_pairs


def assert_same(found, expected):
    for name in ("similarities", "matches", "non_matches"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


@pytest.mark.parametrize("tile_size", [None, 100, 130, 6399])
def test_the_counts_are_those_of_numpy(many, both_ways, rng, tile_size):
    rows, copies = rng.permutation(80)[:70], rng.integers(0, 30, 80)
    for given in (None, copies):
        assert_same(*both_ways(count_pairs, *many, rows, given, tile_size=tile_size))


def test_short_memory_makes_the_same_counts_in_small_blocks(many, both_ways):
    assert_same(*both_ways(count_pairs, *many, np.arange(80), memory=2 * 96 * 30**2))


def test_opposite_rows_and_equal_ones_are_counted_at_the_ends(both_ways):
    found, expected = both_ways(count_pairs, at_degrees(0, 180, 0, 180), [0, 0, 1, 1], range(4))
    assert_same(found, expected)
    assert found.similarities.tolist() == [1, -1]
    assert (found.matches.tolist(), found.non_matches.tolist()) == ([0, 2], [2, 2])


def test_rows_that_make_no_pair_of_one_class_are_refused_on_a_device(both_ways):
    with pytest.raises(ValueError, match="rows must make a pair of images of one class, got none"):
        both_ways(count_pairs, at_degrees(0, 10, 20), np.arange(3), range(3))


def test_a_block_that_memory_does_not_hold_is_counted_in_parts_and_no_pair_twice(
    many, both_ways, monkeypatch
):
    count, sizes = _PairCounter._count, []

    def count_few(self, rows, others):
        sizes.append(len(rows))
        counts = count(self, rows, others)
        if len(rows) > 12:
            raise torch.OutOfMemoryError("out of memory")
        return counts

    monkeypatch.setattr(_PairCounter, "_count", count_few)
    assert_same(*both_ways(count_pairs, *many, np.arange(80), tile_size=30**2))
    assert max(sizes) == 30
