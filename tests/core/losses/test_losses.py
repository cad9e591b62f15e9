import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from supcon_pipeline.core.losses import joint_loss, sincere, sincere_loss, supcon, supcon_loss

# Two classes with gaps in their ids, and one image alone in its class; unsorted.
LABELS = torch.tensor([7, -3, 7, 40, -3, 7])
ANGLES = torch.tensor([0.0, 60.0, 90.0])


def unit_rows(batch, views=2, dim=5, dtype=torch.float64):
    return functional.normalize(torch.randn(batch, views, dim, dtype=dtype), dim=-1)


def soft_labels(batch, num_classes=4):
    return torch.rand(batch, num_classes, dtype=torch.float64).pow(4).softmax(dim=1)


def rows_and_weights(projections, labels):
    """All rows, and by pair how much the one is a positive of the other."""
    num_views = projections.shape[1]
    labels = torch.arange(len(projections)) if labels is None else labels
    rows, row_labels = projections.flatten(0, 1), labels.repeat_interleave(num_views, dim=0)
    if labels.is_floating_point():
        return rows, (row_labels @ row_labels.T).tolist()
    return rows, [[float(one == other) for other in row_labels] for one in row_labels]


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


def value_and_gradient(function, projections, *arguments):
    leaf = projections.detach().clone().requires_grad_()
    value = function(leaf, *arguments)
    value.backward()
    return value.detach(), leaf.grad


def assert_same(first, second, tolerance=1e-9, floor=1e-12):
    """Value and, as a whole, gradient."""
    for one, other in zip(first, second, strict=True):
        assert (
            float((one.double() - other.double()).norm()) <= tolerance * float(other.double().norm()) + floor
        )


@pytest.fixture(autouse=True)
def _one_thread():
    # Hundreds of small products: threads would only wait for one another.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(params=[3, 2048])
def tile(request, monkeypatch):
    """Tiles smaller than the batch, with a rest at the edge, and larger."""
    monkeypatch.setattr(supcon, "CPU_TILE", request.param)
    monkeypatch.setattr(sincere, "SINCERE_TILE", 1)
    monkeypatch.setattr(sincere, "MIN_SINCERE_ROWS", request.param)


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


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
def test_order_of_images_names_of_classes_and_rotation_change_nothing(loss):
    projections, labels = unit_rows(12), torch.arange(12) % 5
    value, gradient = value_and_gradient(loss, projections, labels)
    order, renamed = torch.randperm(12), torch.tensor([30, -2, 11, 5, 7])
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    changed = value_and_gradient(loss, projections[order] @ rotation, renamed[labels][order])
    assert_same(changed, (value, gradient[order] @ rotation))


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(st.integers(-5, 5) | st.integers(-(2**62), 2**62), min_size=2, max_size=24),
    num_views=st.integers(1, 3),
    temperature=st.sampled_from([0.01, 0.017, 0.07, 1.0, 10.0]),
)
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
        # Where every softmax is saturated, the difference of near equals of order 1 / temperature is left.
        found = value_and_gradient(supcon_loss, projections, labels, temperature)
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


def test_supcon_passes_on_the_sign_and_size_of_the_incoming_gradient():
    projections = unit_rows(6)
    _, gradient = value_and_gradient(supcon_loss, projections, LABELS)
    _, scaled = value_and_gradient(lambda *inputs: -3 * supcon_loss(*inputs), projections, LABELS)
    assert torch.allclose(scaled, -3 * gradient)


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


def test_supcon_keeps_float32_where_backward_too_is_under_autocast():
    projections, labels = unit_rows(64, dim=16, dtype=torch.float32), torch.arange(64) % 7
    expected = value_and_gradient(supcon_loss, projections, labels, 0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_and_gradient(supcon_loss, projections, labels, 0.02)
    assert_same(inside, expected, 1e-6)


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


@pytest.mark.parametrize("kind", ["hard", "soft", "none", "one class", "sincere"])
def test_no_tensor_grows_with_the_square_of_the_rows(kind, monkeypatch):
    monkeypatch.setattr(supcon, "CPU_TILE", 32)
    monkeypatch.setattr(sincere, "SINCERE_TILE", 1)
    largest = []
    for batch in (300, 600):
        labels = {"soft": soft_labels(batch), "none": None, "one class": torch.zeros(batch).long()}
        projections = unit_rows(batch).requires_grad_()
        loss = sincere_loss if kind == "sincere" else supcon_loss
        with LargestTensor() as mode:
            loss(projections, labels.get(kind, torch.arange(batch) % 9)).backward()
        largest.append(mode.numel)
    assert largest[1] <= 2 * largest[0] < (2 * 300) ** 2 / 2


def test_supcon_is_that_of_pytorch_metric_learning():
    from pytorch_metric_learning.losses import SupConLoss

    rows, labels, library = torch.randn(40, 2, 16), torch.arange(40) % 6, SupConLoss(temperature=0.1)

    # The library normalises by itself: so the gradient is compared before normalisation.
    def ours(rows):
        return supcon_loss(functional.normalize(rows, dim=-1), labels, 0.1)

    def theirs(rows):
        return library(rows.flatten(0, 1), labels.repeat_interleave(2))

    assert_same(value_and_gradient(ours, rows), value_and_gradient(theirs, rows), 1e-5)


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


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_not_above_zero_is_refused(loss, temperature):
    with pytest.raises(ValueError, match="temperature must be above 0, got"):
        loss(unit_rows(6), LABELS, temperature)


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
@pytest.mark.parametrize("shape", [(6, 5), (6,), (6, 2, 5, 1)])
def test_projections_of_another_shape_are_refused(loss, shape):
    with pytest.raises(ValueError, match=r"projections must be floats \[batch, views, dim\], got"):
        loss(torch.randn(shape), LABELS)


@pytest.mark.parametrize("loss", [supcon_loss, sincere_loss])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:5],
        LABELS.float(),
        LABELS > 0,
        LABELS[:, None],
        torch.ones(6, 3, 1),
        torch.ones(5, 3),
        torch.tensor(1),
    ],
)
def test_labels_of_another_shape_or_kind_are_refused(loss, labels):
    with pytest.raises(ValueError, match=r"labels must be integers \[batch\] or class probabilities"):
        loss(unit_rows(6), labels)


def test_soft_labels_are_refused_by_sincere():
    with pytest.raises(ValueError, match=r"labels must be integers \[batch\], got .*; use supcon_loss"):
        sincere_loss(unit_rows(6), soft_labels(6))


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
