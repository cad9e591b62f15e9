import math
from functools import partial

import pytest
import torch
from tests.core.losses.rows import (
    ANGLES,
    LABELS,
    assert_same,
    assert_same_on_gpu,
    unit_rows,
    value_and_gradient,
)
from tests.core.losses.test_losses import LargestTensor
from tests.gpu import needs_gpu
from torch.autograd import gradcheck

from supcon_pipeline.core.losses import memory, supcon_loss, supcon_memory_loss

# One of a class that the batch lacks, and one of a class that has a single image in the batch.
KNOWN_LABELS = torch.tensor([7, 7, 5, 40, -3])


@pytest.fixture(params=[1, 40, 2**22])
def tile(request, monkeypatch):
    """Tiles of one anchor, of a few, and of all."""
    monkeypatch.setattr(memory, "MEMORY_TILE", request.param)


def known_rows(count=5, dim=5):
    return unit_rows(count, 1, dim)[:, 0]


def memory_by_loop(projections, labels, known, known_labels, temperature):
    """Khosla et al. 2020, Eq. 2, with more references than anchors, one pair at a time."""
    row_labels = [*labels.repeat_interleave(projections.shape[1]).tolist(), *known_labels.tolist()]
    rows = [*projections.flatten(0, 1), *known]
    terms = []
    for i in range(projections.shape[0] * projections.shape[1]):
        similarity = {j: rows[i] @ rows[j] / temperature for j in range(len(rows)) if j != i}
        log_normaliser = torch.stack(list(similarity.values())).logsumexp(0)
        positives = [j for j in similarity if row_labels[j] == row_labels[i]]
        if positives:
            terms.append(sum(log_normaliser - similarity[j] for j in positives) / len(positives))
    return torch.stack(terms).mean()


def test_supcon_with_a_memory_is_as_by_hand():
    # A row at 0 degrees, whose only positive is remembered at 60, and a negative remembered at 90.
    radians = ANGLES.deg2rad().double()
    rows = torch.stack([radians.cos(), radians.sin()], dim=1)
    labels = torch.tensor([3]), torch.tensor([3, 4])
    value = supcon_memory_loss(rows[:1, None], labels[0], rows[1:], labels[1], temperature=1.0)
    assert value.item() == pytest.approx(math.log(math.exp(0.5) + 1) - 0.5, rel=1e-6)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 10])
def test_supcon_with_a_memory_is_that_of_a_slow_loop(num_views, temperature):
    arguments = unit_rows(6, num_views), LABELS, known_rows(), KNOWN_LABELS, temperature
    expected = value_and_gradient(memory_by_loop, *arguments)
    assert_same(value_and_gradient(supcon_memory_loss, *arguments), expected)


@pytest.mark.usefixtures("tile")
def test_gradients_with_a_memory_are_those_of_finite_differences_and_none_reaches_it():
    projections, known = unit_rows(6, 2, 3).requires_grad_(), known_rows(dim=3).requires_grad_()
    loss = partial(
        supcon_memory_loss, labels=LABELS, references=known.detach(), reference_labels=KNOWN_LABELS
    )
    assert gradcheck(loss, projections, eps=1e-7)
    supcon_memory_loss(projections, LABELS, known, KNOWN_LABELS).backward()
    assert known.grad is None


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("num_views", [1, 2])
def test_supcon_without_anything_remembered_is_plain_supcon(num_views):
    projections, nothing = unit_rows(6, num_views), known_rows()[:0]
    expected = value_and_gradient(supcon_loss, projections, LABELS)
    found = value_and_gradient(supcon_memory_loss, projections, LABELS, nothing, KNOWN_LABELS[:0])
    assert_same(found, expected)
    alone = torch.arange(6)
    value, gradient = value_and_gradient(supcon_memory_loss, projections[:, :1], alone, nothing, alone[:0])
    assert value == 0
    assert not gradient.any()


def test_supcon_with_a_memory_in_half_precision_is_computed_in_float32():
    rows, known = unit_rows(6).bfloat16(), known_rows().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(supcon_memory_loss, rows, LABELS, known, KNOWN_LABELS, 0.02)
    expected = memory_by_loop(rows.double(), LABELS, known.double(), KNOWN_LABELS, 0.02)
    assert (value.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_tensor_grows_with_the_rows_times_what_is_remembered(monkeypatch):
    monkeypatch.setattr(memory, "MEMORY_TILE", 1)
    largest = []
    for batch in (200, 400):
        projections, known = unit_rows(batch).requires_grad_(), known_rows(2 * batch)
        labels = torch.arange(batch) % 9
        with LargestTensor() as mode:
            supcon_memory_loss(projections, labels, known, labels.repeat(2)).backward()
        largest.append(mode.numel)
    assert largest[1] <= 2 * largest[0] < 400**2 / 2


@pytest.mark.parametrize(
    ("labels", "known", "known_labels"),
    [
        (torch.ones(6, 3), known_rows(), KNOWN_LABELS),
        (LABELS, known_rows(dim=4), KNOWN_LABELS),
        (LABELS, known_rows(4), KNOWN_LABELS),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(labels, known, known_labels):
    message = r"labels must be integers \[batch\] and references \[n, 5\] with n labels, got"
    with pytest.raises(ValueError, match=message):
        supcon_memory_loss(unit_rows(6), labels, known, known_labels)


@needs_gpu
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_supcon_with_a_memory_on_a_gpu_is_that_on_the_cpu(temperature):
    known, known_labels, labels = known_rows(3000, 32), torch.arange(3000) % 11, torch.arange(1000) % 7

    def loss(rows, labels, temperature):
        others = known.to(rows.device), known_labels.to(rows.device)
        return supcon_memory_loss(rows, labels, *others, temperature)

    assert_same_on_gpu(loss, loss, unit_rows(1000, dim=32), labels, temperature)
