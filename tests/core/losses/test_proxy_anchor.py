import math

import pytest
import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss
from torch.nn import functional

from supcon_pipeline.core.losses import proxy_anchor_loss


def ours(rows, proxies, labels, temperature, margin):
    similarities = functional.normalize(rows, dim=1) @ functional.normalize(proxies, dim=1).T
    return proxy_anchor_loss(similarities, labels, temperature, margin)


@pytest.mark.parametrize(("margin", "alpha"), [(0.1, 32.0), (0.3, 5.0)])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0, 1], [2, 2, 2, 2, 2, 2], [4, 0, 4, 1, 0, 4]])
def test_proxy_anchor_is_that_of_pytorch_metric_learning(margin, alpha, labels):
    torch.manual_seed(0)
    rows = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    reference = ProxyAnchorLoss(5, 8, margin=margin, alpha=alpha).double()
    proxies = reference.proxies.detach().clone().requires_grad_()
    labels = torch.tensor(labels)
    expected = reference(rows, labels)
    gradients = torch.autograd.grad(expected, [rows, reference.proxies])
    found = ours(rows, proxies, labels, 1 / alpha, margin)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, [rows, proxies]), gradients)


def test_proxy_anchor_of_one_row_is_as_by_hand():
    found = proxy_anchor_loss(torch.tensor([[0.5, -0.2]]), torch.tensor([0]), 0.5, 0.1)
    attraction = math.log(1 + math.exp((0.1 - 0.5) / 0.5))
    # The mean over both proxies, of which the first has no other row to push away.
    repulsion = math.log(1 + math.exp((0.1 - 0.2) / 0.5)) / 2
    assert found.item() == pytest.approx(attraction + repulsion)


def test_proxy_anchor_in_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    similarities, labels = torch.rand(6, 4).bfloat16(), torch.arange(6) % 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = proxy_anchor_loss(similarities, labels)
    assert torch.equal(found, proxy_anchor_loss(similarities.float(), labels))


def test_labels_that_are_no_classes_of_the_rows_are_refused():
    similarities = torch.rand(6, 4)
    for labels in (torch.arange(5), torch.rand(6, 4), torch.rand(6)):
        with pytest.raises(ValueError, match=r"labels must be integers \[rows\] for similarities"):
            proxy_anchor_loss(similarities, labels)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        proxy_anchor_loss(similarities, torch.arange(6) % 4, 0)
