import itertools
from typing import Any

import pytest
import torch
from tests.core.losses.rows import assert_same
from tests.core.training import shared_work
from tests.core.training.launched import START_METHOD
from tests.core.training.shared_work import MICRO_BATCHES, SAMPLERS

from supcon_pipeline.core.ranks import ALONE, Ranks

pytestmark = pytest.mark.usefixtures("no_gpu")


@pytest.fixture(scope="module", params=[2, 3])
def count(request: pytest.FixtureRequest) -> int:
    """How many processes work together."""
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def together(count: int, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of it, in each process."""
    folder = tmp_path_factory.mktemp("together")
    torch.multiprocessing.start_processes(
        shared_work.work_together, (count, folder), nprocs=count, start_method=START_METHOD
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


@pytest.fixture(scope="module")
def alone(count: int) -> dict[str, Any]:
    """What comes of it in one process."""
    return shared_work.everything(ALONE, count)


def test_value_and_gradient_of_every_loss_are_those_of_one_process(
    together: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for found, kind in itertools.product(together, ("losses", "joint", "proxy_anchor")):
        for name, expected in alone[kind].items():
            assert_same(found[kind][name], expected, tolerance=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_views_order_and_labels_are_those_of_one_process(
    sampler: str, together: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for found in together:
        assert_same_batches(found["batches"][sampler], alone["batches"][sampler])


def test_views_made_by_workers_are_those_of_one_process(
    together: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for found in together:
        assert_same_batches(found["workers"], alone["workers"])


def assert_same_batches(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("size", MICRO_BATCHES)
def test_steps_are_those_of_one_process_with_micro_batches(
    size: int | None, together: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    assert_same_weights([found["steps"][size] for found in together], alone["steps"][size])


def test_parts_of_unequal_size_count_by_their_images(
    together: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    assert_same_weights([found["uneven"] for found in together], alone["uneven"])


def assert_same_weights(found: list[dict[str, torch.Tensor]], expected: dict[str, torch.Tensor]) -> None:
    for states, name in itertools.product(found[1:], expected):
        assert torch.equal(states[name], found[0][name])
    for name, value in expected.items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-8, atol=1e-8)


def test_shared_embeddings_are_in_order_at_the_first_process(
    together: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for ours, theirs in zip(together[0]["embedded"], alone["embedded"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_all_end_at_the_same_step_where_time_is_limited(together: list[dict[str, Any]]) -> None:
    rates = [found["limited"] for found in together]
    assert 0 < len(rates[0]) < 3000
    assert rates == [rates[0]] * len(rates)


def test_all_agree_on_the_value_of_one(together: list[dict[str, Any]], count: int) -> None:
    assert [found["agreed"] for found in together] == [{"rank": count - 1}] * count


@pytest.mark.parametrize("size", [3, 4, 7, 9])
def test_parts_are_in_order_and_differ_by_one_at_most(size: int) -> None:
    ranks = Ranks(count=3)
    parts = [torch.arange(size)[ranks.part(size, rank)] for rank in range(3)]
    for part, expected in zip(parts, torch.arange(size).tensor_split(3), strict=True):
        assert torch.equal(part, expected)
