import pickle

import pytest

from supcon_pipeline.datasets.items import JoinedItems

ITEMS = JoinedItems([["a"], [], ["b", "c"]], str.upper)


def test_parts_follow_one_another_and_are_read_when_asked_for() -> None:
    assert [ITEMS[index] for index in range(len(ITEMS))] == ["A", "B", "C"]
    assert ITEMS[1:] == ["B", "C"]
    assert list(ITEMS) == ["A", "B", "C"]


@pytest.mark.parametrize("index", [3, -1])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        ITEMS[index]


def test_worker_processes_can_have_them() -> None:
    assert list(pickle.loads(pickle.dumps(ITEMS))) == ["A", "B", "C"]
