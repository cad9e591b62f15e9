from functools import partial

import pytest
import torch
from tests.core.losses.rows import LABELS, assert_same, soft_labels, unit_rows, value_and_gradient
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from supcon_pipeline.core.losses import sincere, sincere_loss, supcon, supcon_loss


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
def test_order_of_images_names_of_classes_and_rotation_change_nothing(loss):
    projections, labels = unit_rows(12), torch.arange(12) % 5
    value, gradient = value_and_gradient(loss, projections, labels)
    order, renamed = torch.randperm(12), torch.tensor([30, -2, 11, 5, 7])
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    changed = value_and_gradient(loss, projections[order] @ rotation, renamed[labels][order])
    assert_same(changed, (value, gradient[order] @ rotation))


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("temperature", [0.01, 0.1, 10])
def test_gradients_of_both_losses_are_those_of_finite_differences(temperature):
    projections, shares = unit_rows(6, 2, 3).requires_grad_(), soft_labels(6).requires_grad_()
    for labels in (LABELS, None):
        for loss in (supcon_loss, sincere_loss):
            assert gradcheck(partial(loss, labels=labels, temperature=temperature), projections, eps=1e-7)
    assert gradcheck(lambda *inputs: supcon_loss(*inputs, temperature), (projections, shares), eps=1e-7)


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_a_batch_without_positives_gives_zero_with_zero_gradient(loss, batch):
    value, gradient = value_and_gradient(loss, unit_rows(batch, 1), torch.arange(batch))
    assert value == 0
    assert torch.equal(gradient, torch.zeros(batch, 1, 5, dtype=torch.float64))


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
def test_non_contiguous_projections_and_labels_change_nothing(loss):
    projections, labels = torch.randn(2, 5, 6).permute(2, 0, 1), LABELS.repeat_interleave(2)[::2]
    assert not projections.is_contiguous()
    assert not labels.is_contiguous()
    expected = value_and_gradient(loss, projections.contiguous(), LABELS)
    assert_same(value_and_gradient(loss, projections, labels), expected, 1e-6)


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
def test_projections_without_gradient_have_the_same_loss(loss):
    projections = unit_rows(6)
    value = loss(projections, LABELS)
    assert not value.requires_grad
    assert value == value_and_gradient(loss, projections, LABELS)[0]


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
def test_under_autocast_similarities_stay_float32(loss):
    projections = unit_rows(64, dim=16, dtype=torch.float32)
    labels = torch.arange(64) % 7
    expected = value_and_gradient(loss, projections, labels, 0.02)

    def under_autocast(rows):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(rows, labels, 0.02)

    assert_same(value_and_gradient(under_autocast, projections), expected, 1e-6)
    half = projections.bfloat16()
    from_half = value_and_gradient(loss, half, labels, 0.02)
    assert from_half[0].dtype == torch.float32
    assert from_half[1].dtype == torch.bfloat16
    assert from_half[0] == loss(half.float(), labels, 0.02)


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                # An expanded view has no memory of its own.
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("kind", ["hard", "soft", "none", "one class", "sincere", "averaged"])
def test_no_tensor_grows_with_the_square_of_the_rows(kind, monkeypatch):
    monkeypatch.setattr(supcon, "CPU_TILE", 32)
    monkeypatch.setattr(sincere, "SINCERE_TILE", 1)
    largest = []
    for batch in (300, 600):
        labels = {"soft": soft_labels(batch), "none": None, "one class": torch.zeros(batch).long()}
        projections = unit_rows(batch).requires_grad_()
        averaged = partial(supcon_loss, is_class_averaged=True)
        loss = {"sincere": sincere_loss, "averaged": averaged}.get(kind, supcon_loss)
        with LargestTensor() as mode:
            loss(projections, labels.get(kind, torch.arange(batch) % 9)).backward()
        largest.append(mode.numel)
    assert largest[1] <= 2 * largest[0] < (2 * 300) ** 2 / 2
