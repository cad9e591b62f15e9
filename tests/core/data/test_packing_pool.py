import os
import time
from functools import partial

import cv2
import numpy as np
import pytest
from tests.core.data.packings import PACKING

from supcon_pipeline.core.data import packing_pool
from supcon_pipeline.core.data.packing_pool import pack_stream


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_are_packed_in_order_and_the_rest_is_named_with_a_reason(items, num_workers):
    given, expected = items
    packed = list(pack_stream(given, PACKING, num_workers))
    assert np.array_equal(np.stack([packed[index] for index in (0, 1, 2, 5)]), expected)
    assert packed[3]
    assert isinstance(packed[3], str)
    assert packed[4] == "No such file or directory"


def test_an_array_that_is_no_image_is_rejected_and_not_raised():
    (reason,) = pack_stream([np.zeros((4, 4), np.float64)], PACKING, 0)
    assert reason == "image must be uint8 with 1 or 3 channels, got float64 with shape (4, 4)"


def test_items_are_taken_a_few_at_a_time():
    class Counting(list):
        taken = 0

        def __getitem__(self, index):
            self.taken += 1
            return super().__getitem__(index)

    counting = Counting([np.zeros((1, 1), np.uint8)] * 1000)
    next(pack_stream(counting, PACKING, 0))
    assert counting.taken <= 64


class Killer:
    """Ends the process that receives it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_an_image_that_ends_its_process_is_rejected_and_no_other_is(rng):
    images = list(rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8))
    given = [*images[:70], Killer(), *images[70:71], Killer(), *images[71:]]
    packed = list(pack_stream(given, PACKING, 2))
    reasons = {index: image for index, image in enumerate(packed) if isinstance(image, str)}
    assert reasons.keys() == {70, 72}
    assert reasons[70].startswith("the process that decoded it was killed")
    assert np.array_equal(np.stack([image for image in packed if not isinstance(image, str)]), images)


class Hanging:
    """Takes the process that receives it longer than it has."""

    def __reduce__(self):
        return time.sleep, (60,)


def test_an_image_that_hangs_its_process_is_rejected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing_pool, "_TIME_LIMIT", 0.5)
    assert list(pack_stream([Hanging()], PACKING, 1)) == ["it was not decoded within 0.5 seconds"]


def test_a_process_that_cannot_start_is_one_line_and_no_endless_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing_pool, "prepare_worker", partial(os._exit, 3))
    with pytest.raises(
        ValueError, match=r"num_workers must leave memory for every process, got 1 and one was killed"
    ):
        list(pack_stream([np.zeros((1, 1), np.uint8)], PACKING, 1))


def test_a_process_that_decodes_has_one_thread():
    with packing_pool._start_pool(1) as pool:
        assert pool.submit(cv2.getNumThreads).result() == 1
