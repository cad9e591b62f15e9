import numpy as np
import pytest
import torch
from torch.nn import functional

from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.training.criteria import (
    classification_criterion,
    collapse_loss,
    contrastive_criterion,
)
from supcon_pipeline.core.views.loading import Batch, build_loader
from supcon_pipeline.core.views.mixing import Mixing, blend, cut_in, mix_labels
from supcon_pipeline.core.views.policy import ViewPolicy

NUM_IMAGES = 24


@pytest.fixture
def batch():
    """Each image is a class of its own, and each view one colour that only it has."""
    colours = 10 * np.arange(NUM_IMAGES)[:, None] + np.array([0, 3])
    views = np.broadcast_to(colours[:, :, None, None, None], (NUM_IMAGES, 2, 16, 12, 3)).astype(np.uint8)
    return views, np.arange(NUM_IMAGES)


def mixed_by(batch, name, seed=0, alpha=1.0, probability=1.0):
    mixing = Mixing(name, alpha, probability, NUM_IMAGES)
    return mixing(*batch, np.random.default_rng(seed))


def shares_of(probabilities, index):
    """The share of the image itself, and its partner."""
    others = np.flatnonzero(np.delete(probabilities, index))
    assert len(others) <= 1
    if not len(others):
        return 1.0, index
    partner = int(others[0] + (others[0] >= index))
    return float(probabilities[index]), partner


def test_mixup_mixes_the_pixels_as_it_mixes_the_labels(batch):
    mixed, probabilities = mixed_by(batch, "mixup")
    partners = []
    for index in range(NUM_IMAGES):
        share, partner = shares_of(probabilities[index], index)
        partners.append(partner)
        for view in range(2):
            expected = share * (10 * index + 3 * view) + (1 - share) * (10 * partner + 3 * view)
            assert np.abs(mixed[index, view] - expected).max() <= 0.501
    assert sorted(partners) == list(range(NUM_IMAGES))


def test_cutmix_replaces_a_box_in_each_view_that_is_the_share_of_the_label(batch):
    mixed, probabilities = mixed_by(batch, "cutmix")
    places = set()
    for index in range(NUM_IMAGES):
        share, partner = shares_of(probabilities[index], index)
        for view in range(2):
            is_own = (mixed[index, view] == 10 * index + 3 * view).all(axis=-1)
            is_other = (mixed[index, view] == 10 * partner + 3 * view).all(axis=-1)
            assert (is_own | is_other).all()
            if partner == index:
                continue
            assert is_own.mean() == pytest.approx(share, abs=1e-6)
            rows, columns = np.flatnonzero(is_other.any(axis=1)), np.flatnonzero(is_other.any(axis=0))
            # A full box: every row of every column between the first and the last.
            assert is_other.sum() == len(rows) * len(columns)
            if len(rows):
                assert (len(rows), len(columns)) == (np.ptp(rows) + 1, np.ptp(columns) + 1)
                places.add((view, int(rows[0]), int(columns[0])))
    assert len(places) > NUM_IMAGES


def test_both_is_now_one_and_now_the_other(batch):
    mixed, _ = mixed_by(batch, "both")
    is_uniform = (mixed == mixed[:, :, :1, :1]).all(axis=(1, 2, 3, 4))
    assert 4 < is_uniform.sum() < 20


def test_half_of_the_images_are_mixed_with_a_probability_of_a_half(batch):
    is_mixed = [mixed_by(batch, "mixup", seed, probability=0.5)[1].max(axis=1) < 1 for seed in range(20)]
    assert 0.4 < np.mean(is_mixed) < 0.6


def test_the_shares_are_those_of_the_beta_distribution(batch):
    drawn = []
    for seed in range(100):
        _, probabilities = mixed_by(batch, "mixup", seed, alpha=0.4)
        drawn += [p for index, row in enumerate(probabilities) if (p := row[index]) < 1]
    # Var of Beta(a, a) is 1 / (4 (2a + 1)).
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)
    assert np.var(drawn) == pytest.approx(1 / 7.2, abs=0.01)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "both"])
def test_labels_are_probabilities_and_the_generator_decides_alone(batch, name):
    first, again, other = mixed_by(batch, name), mixed_by(batch, name), mixed_by(batch, name, seed=1)
    assert first[0].dtype == np.uint8
    assert first[1].dtype == np.float32
    assert first[1].sum(axis=1) == pytest.approx(np.ones(NUM_IMAGES))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_values_by_hand():
    views, others = np.full((1, 4, 4, 1), 100, np.uint8), np.full((1, 4, 4, 1), 200, np.uint8)
    assert blend(views, others, 0.25).tolist() == np.full((1, 4, 4, 1), 175).tolist()
    mixed, share = cut_in(views, others, 0.75, np.random.default_rng(0))
    assert (share, (mixed == 200).sum()) == (0.75, 4)
    expected = [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    assert mix_labels(np.array([0, 2]), np.array([1, 2]), np.array([0.75, 0.4]), 3).tolist() == expected


def loader_of(num_workers):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    policy = ViewPolicy([{"name": "HorizontalFlip"}], num_views=2)
    mixing = Mixing("both", 1.0, 0.8, 4)
    indices = np.arange(40)
    return build_loader(images, indices % 4, indices, policy, 10, num_workers, seed=0, mixing=mixing)


def test_mixed_batches_are_the_same_by_workers_and_from_the_middle_of_an_epoch():
    whole = list(loader_of(0).epoch(1))
    by_workers, resumed = list(loader_of(2).epoch(1)), list(loader_of(0).epoch(1, first_batch=2))
    assert whole[0].labels.shape == (10, 4)
    for batches, expected in ((by_workers, whole), (resumed, whole[2:])):
        assert len(batches) == len(expected)
        for batch, other in zip(batches, expected, strict=True):
            assert torch.equal(batch.views, other.views)
            assert torch.equal(batch.labels, other.labels)


def test_the_contrastive_loss_of_mixed_images_is_that_of_a_slow_loop():
    batch = next(loader_of(0).epoch(0))
    projections = functional.normalize(torch.randn(20, 6, dtype=torch.float64), dim=1)
    params = ContrastiveLossParameters(
        name="supcon", temperature=0.2, classifier_weight=0.0, label_smoothing=0.0
    )
    labels = batch.labels.double().repeat_interleave(2, dim=0)
    losses = []
    for anchor in range(20):
        others = [row for row in range(20) if row != anchor]
        weights = torch.stack([labels[anchor] @ labels[row] for row in others])
        logits = torch.stack([projections[anchor] @ projections[row] / 0.2 for row in others])
        losses.append(-(weights / weights.sum() * logits.log_softmax(0)).sum())
    loss = contrastive_criterion(params)({"projection": projections}, batch)
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)


def test_the_cross_entropy_of_mixed_images_is_the_mean_of_those_of_their_labels():
    views, labels = torch.zeros(2, 2, 4, 4, 3, dtype=torch.uint8), torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    logits = torch.randn(4, 2)
    log_shares = logits.log_softmax(1)
    by_hand = [0.25 * log_shares[row, 0] + 0.75 * log_shares[row, 1] for row in (0, 1)] + list(
        log_shares[2:, 0]
    )
    loss = classification_criterion(0.0)({"logits": logits}, Batch(views, labels))
    assert loss.item() == pytest.approx(-torch.stack(by_hand).mean().item())


def test_the_loss_of_a_collapsed_encoder_by_mixed_images_is_that_of_constant_projections():
    batch = next(loader_of(0).epoch(0))
    params = ContrastiveLossParameters(
        name="supcon", temperature=0.2, classifier_weight=0.0, label_smoothing=0.0
    )
    constant = functional.normalize(torch.ones(20, 4, dtype=torch.float64), dim=1)
    loss = contrastive_criterion(params)({"projection": constant}, batch)
    assert collapse_loss("supcon")(batch.labels, 2) == pytest.approx(loss.item())
