import math
from functools import partial

import pytest
import torch
from tests.core.losses.rows import (
    ANGLES,
    LABELS,
    assert_same,
    assert_same_on_gpu,
    rows_and_weights,
    soft_labels,
    unit_rows,
    value_and_gradient,
)
from tests.gpu import needs_gpu
from torch.autograd import gradcheck
from torch.nn import functional

from supcon_pipeline.core.losses import supcon, supcon_loss
from supcon_pipeline.core.losses.supcon import class_weights

averaged_loss = partial(supcon_loss, is_class_averaged=True)


def averaged_by_loop(projections, labels, temperature):
    """Zhu et al. 2022: one anchor at a time, whose denominator has the mean of each class."""
    rows, positive = rows_and_weights(projections, labels)
    if not labels.is_floating_point():
        labels = functional.one_hot(labels - labels.min()).double()
    shares = labels.repeat_interleave(projections.shape[1], dim=0)
    sizes = [float(size) for size in shares.sum(dim=0)]
    present = [c for c, size in enumerate(sizes) if size]
    mean_size = len(rows) / len(present)
    terms = []
    for i, anchor in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        exponentials = {j: (anchor @ rows[j] / temperature).exp() for j in others}
        means = [sum(shares[j][c] * exponentials[j] for j in others) / sizes[c] for c in present]
        log_normaliser = (mean_size * sum(means)).log()
        total = sum(positive[i][j] for j in others)
        losses = [positive[i][j] / total * (log_normaliser - exponentials[j].log()) for j in others if total]
        terms += [sum(losses)] if losses else []
    return torch.stack(terms).mean()


def test_class_averaged_supcon_of_four_rows_is_as_by_hand():
    # At 0, 60 and 90 degrees one class, at 180 another, which has weight 2 where the three have 2 / 3.
    radians = torch.cat([ANGLES, torch.tensor([180.0])]).deg2rad().double()
    rows = torch.stack([radians.cos(), radians.sin()], dim=1)[:, None]
    near, far = 0.5, math.sqrt(3) / 2
    anchors = [((near, 0), -1), ((near, far), -0.5), ((0, far), 0)]
    losses = [
        math.log(2 / 3 * sum(map(math.exp, positives)) + 2 * math.exp(negative)) - sum(positives) / 2
        for positives, negative in anchors
    ]
    value = averaged_loss(rows, torch.tensor([1, 1, 1, 0]), temperature=1.0)
    assert value.item() == pytest.approx(sum(losses) / 3, rel=1e-6)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("num_views", [1, 2, 3])
# The lowest is beyond what is computed without a shift.
@pytest.mark.parametrize("temperature", [0.01, 0.1, 10])
def test_class_averaged_supcon_is_that_of_a_slow_loop(kind, num_views, temperature):
    labels = LABELS if kind == "hard" else soft_labels(6)
    arguments = unit_rows(6, num_views), labels, temperature
    expected = value_and_gradient(averaged_by_loop, *arguments)
    assert_same(value_and_gradient(averaged_loss, *arguments), expected)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_gradients_of_class_averaged_supcon_are_those_of_finite_differences(temperature):
    projections = unit_rows(6, 2, 3).requires_grad_()
    for labels in (LABELS, soft_labels(6)):
        loss = partial(averaged_loss, labels=labels, temperature=temperature)
        assert gradcheck(loss, projections, eps=1e-7)


@pytest.mark.parametrize("images_per_class", [1, 2, 3, 7])
@pytest.mark.parametrize("is_soft", [False, True])
def test_class_averaged_supcon_of_classes_of_equal_size_is_plain_supcon(images_per_class, is_soft):
    labels = (torch.arange(5) * 3 - 4).repeat(images_per_class)
    if is_soft:
        labels = functional.one_hot(labels + 4, 15).double()
    projections = unit_rows(len(labels))
    assert torch.equal(class_weights(labels, projections), torch.ones(len(labels), dtype=torch.float64))
    expected = value_and_gradient(supcon_loss, projections, labels)
    assert_same(value_and_gradient(averaged_loss, projections, labels), expected, 1e-14)


def test_class_averaged_supcon_without_labels_is_plain_supcon():
    projections = unit_rows(6)
    expected = value_and_gradient(supcon_loss, projections, None)
    assert_same(value_and_gradient(averaged_loss, projections, None), expected)


@pytest.mark.parametrize("is_soft", [False, True])
def test_all_classes_have_the_same_weight_together_and_all_images_that_of_their_number(is_soft):
    shares = soft_labels(6) if is_soft else functional.one_hot(LABELS + 3).double()
    shares = shares[:, shares.sum(dim=0) > 0]
    weights = class_weights(shares if is_soft else LABELS, unit_rows(6))
    if not is_soft:
        by_class = weights @ shares
        torch.testing.assert_close(by_class, torch.full_like(by_class, 6 / len(by_class)))
    assert weights.sum().item() == pytest.approx(6)


def test_class_averaged_supcon_in_float32_is_that_in_float64_over_many_tiles(monkeypatch):
    monkeypatch.setattr(supcon, "CPU_TILE", 256)
    labels = (torch.rand(750) ** 4 * 40).long()
    projections = unit_rows(750, dim=32)
    for temperature in (0.01, 0.1, 1.0):
        expected = value_and_gradient(averaged_loss, projections, labels, temperature)
        found = value_and_gradient(averaged_loss, projections.float(), labels, temperature)
        assert_same(found, expected, 1e-5)


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_class_averaged_supcon_without_positives_is_zero_with_zero_gradient(batch):
    value, gradient = value_and_gradient(averaged_loss, unit_rows(batch, 1), torch.arange(batch))
    assert value == 0
    assert not gradient.any()


def plain_formula(projections, labels, temperature):
    """The whole similarity matrix at once."""
    num_views = projections.shape[1]
    rows, row_labels = projections.flatten(0, 1), labels.repeat_interleave(num_views)
    is_same = row_labels[:, None] == row_labels
    sizes = is_same.sum(dim=1)
    weights = len(rows) / len(labels.unique()) / sizes
    is_self = torch.eye(len(rows), dtype=torch.bool)
    similarity = rows @ rows.T / temperature
    log_normaliser = (similarity + weights.log()).masked_fill(is_self, -torch.inf).logsumexp(dim=1)
    positive_mean = (similarity * (is_same & ~is_self)).sum(dim=1) / (sizes - 1)
    return (log_normaliser - positive_mean).mean()


@needs_gpu
@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("num_images", [100, supcon.GPU_TILE // 2 + 50])
def test_class_averaged_supcon_on_a_gpu_is_the_plain_formula_on_the_cpu(temperature, num_images):
    labels = (torch.rand(num_images) ** 4 * 20).long()
    projections = unit_rows(num_images, dim=32)
    assert_same_on_gpu(averaged_loss, plain_formula, projections, labels, temperature)
