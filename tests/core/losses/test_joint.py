import math

import pytest
import torch
from tests.core.losses.rows import assert_same, soft_labels, value_and_gradient
from tests.gpu import needs_gpu

from supcon_pipeline.core.losses import joint_loss


def test_joint_loss_is_as_by_hand():
    # Two classes, logits 0 and 0: log 2 each.
    value = joint_loss(torch.tensor(1.5), torch.zeros(3, 2), torch.tensor([0, 1, 1]), weight=0.5)
    assert value.item() == pytest.approx(1.5 + 0.5 * math.log(2))


@pytest.mark.parametrize("is_soft", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_joint_loss_is_that_of_a_slow_loop(is_soft, label_smoothing):
    logits, classes = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0])
    labels = soft_labels(6) if is_soft else classes
    total = 0.0
    for i, row in enumerate(logits):
        for c in range(4):
            share = float(labels[i, c]) if is_soft else float(labels[i] == c)
            share = (1 - label_smoothing) * share + label_smoothing / 4
            total -= share * math.log(math.exp(row[c]) / sum(math.exp(other) for other in row))
    value = joint_loss(torch.tensor(2.0), logits, labels, 0.3, label_smoothing)
    assert value.item() == pytest.approx(2.0 + 0.3 * total / 6)


def test_joint_loss_of_weight_zero_is_the_contrastive_loss_and_order_changes_nothing():
    logits, labels, order = torch.randn(6, 4), torch.arange(6) % 4, torch.randperm(6)
    contrastive = torch.tensor(0.7)
    assert joint_loss(contrastive, logits, labels, 0.0) == contrastive
    shuffled = joint_loss(contrastive, logits[order], labels[order], 2.0)
    assert shuffled.item() == pytest.approx(joint_loss(contrastive, logits, labels, 2.0).item(), rel=1e-6)


def test_joint_loss_of_half_precision_logits_is_that_of_their_float32():
    logits, labels = torch.randn(6, 4).bfloat16(), torch.arange(6) % 4
    value = joint_loss(torch.tensor(0.0), logits, labels, 1.0)
    assert value.dtype == torch.float32
    assert value == joint_loss(torch.tensor(0.0), logits.float(), labels, 1.0)


@pytest.mark.parametrize(
    ("shape", "weight", "label_smoothing", "message"),
    [
        ((5, 4), 1.0, 0.0, r"logits must be \[batch, classes\] .* repeat the labels for each view"),
        ((6, 2, 4), 1.0, 0.0, r"logits must be \[batch, classes\]"),
        ((6, 4), -1.0, 0.0, "weight must be at least 0, got -1.0"),
        ((6, 4), float("nan"), 0.0, "weight must be at least 0, got nan"),
        ((6, 4), 1.0, 1.5, r"label_smoothing must be in \[0, 1\], got 1.5"),
    ],
)
def test_joint_loss_of_wrong_shapes_or_numbers_is_refused(shape, weight, label_smoothing, message):
    with pytest.raises(ValueError, match=message):
        joint_loss(torch.tensor(1.0), torch.randn(shape), torch.arange(6) % 4, weight, label_smoothing)


@needs_gpu
@pytest.mark.parametrize("is_soft", [False, True])
def test_joint_loss_on_a_gpu_is_that_on_the_cpu(is_soft):
    logits = torch.randn(64, 10, dtype=torch.float64)
    labels = soft_labels(64, 10) if is_soft else torch.arange(64) % 10

    def loss(rows):
        return joint_loss(torch.tensor(0.7, device=rows.device), rows, labels.to(rows.device), 0.3, 0.1)

    expected = value_and_gradient(loss, logits)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        found = value_and_gradient(loss, logits.to("cuda", dtype))
        assert_same([part.cpu() for part in found], expected, tolerance)
    with torch.autocast("cuda", torch.bfloat16):
        half = loss(logits.bfloat16().cuda())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss(logits.bfloat16().double()).item(), rel=2e-6)
