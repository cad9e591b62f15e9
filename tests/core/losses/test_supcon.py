import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
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
from torch.nn import functional

from supcon_pipeline.core.losses import supcon, supcon_loss


def supcon_by_loop(projections, labels, temperature):
    """Khosla et al. 2020, Eq. 2, one anchor and one positive at a time."""
    rows, weights = rows_and_weights(projections, labels)
    terms = []
    for i, anchor in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        total = sum(weights[i][j] for j in others)
        if total == 0:
            continue
        similarity = {j: anchor @ rows[j] / temperature for j in others}
        log_normaliser = torch.stack(list(similarity.values())).logsumexp(0)
        terms.append(sum(weights[i][j] / total * (log_normaliser - similarity[j]) for j in others))
    return torch.stack(terms).mean() if terms else rows.sum() * 0


def plain_formula(projections, labels, temperature):
    """The whole similarity matrix at once."""
    rows, row_labels = projections.flatten(0, 1), labels.repeat_interleave(projections.shape[1])
    is_self = torch.eye(len(rows), dtype=torch.bool)
    is_positive = (row_labels[:, None] == row_labels) & ~is_self
    similarity = rows @ rows.T / temperature
    log_normaliser = similarity.masked_fill(is_self, -torch.inf).logsumexp(dim=1)
    num_positives = is_positive.sum(dim=1)
    positive_mean = (similarity * is_positive).sum(dim=1) / num_positives.clamp(min=1)
    return (log_normaliser - positive_mean)[num_positives > 0].mean()


def test_supcon_of_three_rows_is_as_by_hand():
    # At 0, 60 and 90 degrees; the rows at 0 and 60 are of one class, the row at 90 has no positive.
    radians = ANGLES.deg2rad()
    rows = torch.stack([radians.cos(), radians.sin()], dim=1)[:, None]
    first = math.log(math.exp(0.5) + math.exp(0.0)) - 0.5
    second = math.log(math.exp(0.5) + math.exp(math.sqrt(3) / 2)) - 0.5
    value = supcon_loss(rows, torch.tensor([1, 1, 2]), temperature=1.0)
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("kind", ["hard", "soft", "none"])
@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 10])
def test_supcon_is_that_of_a_slow_loop(kind, num_views, temperature):
    labels = {"hard": LABELS, "soft": soft_labels(6), "none": None}[kind]
    projections = unit_rows(6, num_views)
    arguments = projections, labels, temperature
    assert_same(value_and_gradient(supcon_loss, *arguments), value_and_gradient(supcon_by_loop, *arguments))


def test_supcon_without_labels_is_the_nt_xent_of_simclr():
    # Chen et al. 2020, arXiv:2002.05709, Eq. 1: the positive of a view is the other view of its image.
    projections = unit_rows(5)
    rows = projections.flatten(0, 1)
    similarity = (rows @ rows.T / 0.5).fill_diagonal_(-torch.inf)
    expected = functional.cross_entropy(similarity, torch.arange(10) ^ 1)
    assert supcon_loss(projections, None, 0.5).item() == pytest.approx(expected.item())


@pytest.mark.usefixtures("tile")
def test_supcon_of_one_hot_rows_is_that_of_their_classes():
    projections, labels = unit_rows(9), torch.tensor([0, 2, 2, 0, 4, 2, 1, 1, 0])
    one_hot = functional.one_hot(labels, 6).double()
    hard = value_and_gradient(supcon_loss, projections, labels)
    assert_same(value_and_gradient(supcon_loss, projections, one_hot), hard)
    alone = value_and_gradient(supcon_loss, projections[:, :1], labels)
    assert_same(value_and_gradient(supcon_loss, projections[:, :1], one_hot), alone)


def test_supcon_leaves_out_an_anchor_whose_label_is_only_noise_elsewhere():
    projections, labels = unit_rows(6, 1), torch.tensor([0, 0, 1, 1, 1, 2])
    noisy = functional.one_hot(labels, 3) * (1 - 2e-30) + 1e-30
    hard = value_and_gradient(supcon_loss, projections, labels)
    assert_same(value_and_gradient(supcon_loss, projections, noisy.double()), hard)


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(st.integers(-5, 5) | st.integers(-(2**62), 2**62), min_size=2, max_size=24),
    num_views=st.integers(1, 3),
    temperature=st.sampled_from([0.01, 0.017, 0.07, 1.0, 10.0]),
)
@example(labels=[1, -1, 0, -1], num_views=1, temperature=0.01)
def test_supcon_in_float32_is_the_plain_formula_for_any_labels(labels, num_views, temperature):
    torch.manual_seed(0)
    labels = torch.tensor(labels)
    projections = unit_rows(len(labels), num_views, dim=8, dtype=torch.float32)
    if num_views == 1 and len(labels.unique()) == len(labels):
        assert supcon_loss(projections, labels, temperature) == 0
        return
    if projections[..., 0].numel() == 2:
        # The only other row is the positive: 0 up to the rounding of the similarity.
        assert abs(supcon_loss(projections, labels, temperature)) <= 5e-7 / temperature
        return
    expected = value_and_gradient(plain_formula, projections.double(), labels, temperature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supcon, "CPU_TILE", 7)
        found = value_and_gradient(supcon_loss, projections, labels, temperature)
        # Where every softmax is saturated, the difference of near equals of order 1 / temperature is left.
        assert_same(found, expected, 1e-5, floor=5e-7 / temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("num_classes", [1, 10, 1500])
def test_supcon_in_float32_is_the_plain_formula_over_many_tiles(temperature, num_classes, monkeypatch):
    monkeypatch.setattr(supcon, "CPU_TILE", 256)
    projections, labels = unit_rows(750, dim=32, dtype=torch.float32), torch.randint(0, num_classes, (750,))
    expected = value_and_gradient(plain_formula, projections.double(), labels, temperature)
    assert_same(value_and_gradient(supcon_loss, projections, labels, temperature), expected, 1e-5)


@pytest.mark.usefixtures("tile")
# At length 30 float32 has similarities of up to 9,000 to 5e-4: that is what the softmax is right to.
@pytest.mark.parametrize(("scale", "tolerance"), [(1e-3, 1e-5), (1.3, 1e-5), (30.0, 1e-3)])
def test_supcon_of_rows_of_any_length_is_the_plain_formula(scale, tolerance):
    projections = (unit_rows(6, dim=3) * scale * torch.rand(6, 2, 1)).float()
    expected = value_and_gradient(plain_formula, projections.double(), LABELS, 0.1)
    assert_same(value_and_gradient(supcon_loss, projections, LABELS, 0.1), expected, tolerance)


def test_supcon_of_a_row_opposite_to_all_others_does_not_underflow():
    # Similarities -100 and 100 in one batch: no common scale fits into float32.
    projections = torch.tensor([[1.0, 0.0]] * 5 + [[-1.0, 0.0]])[:, None]
    value, gradient = value_and_gradient(supcon_loss, projections, torch.tensor([0, 0, 0, 1, 1, 0]), 0.01)
    expected = plain_formula(projections.double(), torch.tensor([0, 0, 0, 1, 1, 0]), 0.01)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert gradient.isfinite().all()


def test_supcon_passes_on_the_sign_and_size_of_the_incoming_gradient():
    projections = unit_rows(6)
    _, gradient = value_and_gradient(supcon_loss, projections, LABELS)
    _, scaled = value_and_gradient(lambda *inputs: -3 * supcon_loss(*inputs), projections, LABELS)
    assert torch.allclose(scaled, -3 * gradient)


def test_supcon_keeps_float32_where_backward_too_is_under_autocast():
    projections, labels = unit_rows(64, dim=16, dtype=torch.float32), torch.arange(64) % 7
    expected = value_and_gradient(supcon_loss, projections, labels, 0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_and_gradient(supcon_loss, projections, labels, 0.02)
    assert_same(inside, expected, 1e-6)


def test_supcon_is_that_of_pytorch_metric_learning():
    from pytorch_metric_learning.losses import SupConLoss

    rows, labels, library = torch.randn(40, 2, 16), torch.arange(40) % 6, SupConLoss(temperature=0.1)

    # The library normalises by itself: so the gradient is compared before normalisation.
    def ours(rows):
        return supcon_loss(functional.normalize(rows, dim=-1), labels, 0.1)

    def theirs(rows):
        return library(rows.flatten(0, 1), labels.repeat_interleave(2))

    assert_same(value_and_gradient(ours, rows), value_and_gradient(theirs, rows), 1e-5)


def plain_formula_of_any_labels(projections, labels, temperature):
    """The whole matrices of similarities and of label weights at once."""
    num_views = projections.shape[1]
    labels = torch.arange(len(projections)) if labels is None else labels
    rows, row_labels = projections.flatten(0, 1), labels.repeat_interleave(num_views, dim=0)
    is_self = torch.eye(len(rows), dtype=torch.bool)
    is_soft = labels.is_floating_point()
    weights = row_labels @ row_labels.T if is_soft else (row_labels[:, None] == row_labels).double()
    weights = weights.masked_fill(is_self, 0.0)
    similarity = rows @ rows.T / temperature
    log_normaliser = similarity.masked_fill(is_self, -torch.inf).logsumexp(dim=1)
    return (log_normaliser - (similarity * weights).sum(dim=1) / weights.sum(dim=1)).mean()


@needs_gpu
@pytest.mark.parametrize("kind", ["hard", "soft", "none"])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
# Of two views each: in one tile of a GPU, and in four.
@pytest.mark.parametrize("num_images", [100, supcon.GPU_TILE // 2 + 50])
def test_supcon_on_a_gpu_is_the_plain_formula_on_the_cpu(kind, temperature, num_images):
    labels = {"hard": torch.arange(num_images) % 7, "soft": soft_labels(num_images), "none": None}[kind]
    projections = unit_rows(num_images, dim=32)
    assert_same_on_gpu(supcon_loss, plain_formula_of_any_labels, projections, labels, temperature)
