import math

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

from supcon_pipeline.core.losses import sincere_loss, supcon_loss


def sincere_by_loop(projections, labels, temperature):
    """Feeney and Hughes 2023: one anchor and one positive at a time against the negatives alone."""
    rows, weights = rows_and_weights(projections, labels)
    terms = []
    for i, anchor in enumerate(rows):
        positives = [j for j in range(len(rows)) if j != i and weights[i][j]]
        negatives = [anchor @ rows[j] / temperature for j in range(len(rows)) if not weights[i][j]]
        pairs = [anchor @ rows[j] / temperature for j in positives]
        pair_losses = [torch.stack([s, *negatives]).logsumexp(0) - s for s in pairs]
        if pair_losses:
            terms.append(torch.stack(pair_losses).mean())
    return torch.stack(terms).mean() if terms else rows.sum() * 0


def test_sincere_of_four_rows_is_as_by_hand():
    # At 0, 60 and 90 degrees one class, at 180 another: a positive competes with the one negative alone.
    radians = torch.cat([ANGLES, torch.tensor([180.0])]).deg2rad().double()
    rows = torch.stack([radians.cos(), radians.sin()], dim=1)[:, None]
    near, far = 0.5, math.sqrt(3) / 2
    pairs = [[(near, -1), (0, -1)], [(near, -0.5), (far, -0.5)], [(0, 0), (far, 0)]]
    anchors = [sum(math.log1p(math.exp(n - p)) for p, n in anchor) / 2 for anchor in pairs]
    value = sincere_loss(rows, torch.tensor([1, 1, 1, 0]), temperature=1.0)
    assert value.item() == pytest.approx(sum(anchors) / 3, rel=1e-6)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("labels", [LABELS, None, torch.zeros(6).long()])
@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 10])
def test_sincere_is_that_of_a_slow_loop(labels, num_views, temperature):
    arguments = unit_rows(6, num_views), labels, temperature
    expected = value_and_gradient(sincere_by_loop, *arguments)
    assert_same(value_and_gradient(sincere_loss, *arguments), expected)


def test_sincere_of_two_views_without_labels_is_that_of_supcon():
    # One positive each: there is no other positive to leave out.
    projections = unit_rows(7)
    expected = value_and_gradient(supcon_loss, projections, None)
    assert_same(value_and_gradient(sincere_loss, projections, None), expected)


def test_soft_labels_are_refused_by_sincere():
    with pytest.raises(ValueError, match=r"labels must be integers \[batch\], got .*; use supcon_loss"):
        sincere_loss(unit_rows(6), soft_labels(6))


def plain_formula(projections, labels, temperature):
    """The whole similarity matrix at once."""
    num_views = projections.shape[1]
    labels = torch.arange(len(projections)) if labels is None else labels
    rows, row_labels = projections.flatten(0, 1), labels.repeat_interleave(num_views)
    is_same = row_labels[:, None] == row_labels
    is_positive = is_same & ~torch.eye(len(rows), dtype=torch.bool)
    similarity = rows @ rows.T / temperature
    negatives = similarity.masked_fill(is_same, -torch.inf).logsumexp(dim=1, keepdim=True)
    losses = torch.logaddexp(similarity, negatives) - similarity
    return ((losses * is_positive).sum(dim=1) / is_positive.sum(dim=1)).mean()


@needs_gpu
@pytest.mark.parametrize("kind", ["hard", "none"])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
# Of two views each: in several tiles, and in many.
@pytest.mark.parametrize("num_images", [50, 1100])
def test_sincere_on_a_gpu_is_the_plain_formula_on_the_cpu(kind, temperature, num_images):
    labels = torch.arange(num_images) % 7 if kind == "hard" else None
    projections = unit_rows(num_images, dim=32)
    assert_same_on_gpu(sincere_loss, plain_formula, projections, labels, temperature)
