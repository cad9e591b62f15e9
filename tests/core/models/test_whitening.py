import numpy as np
import pytest
import torch
from sklearn.covariance import empirical_covariance
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.models.whitening import (
    UNSEEN_SHRINKAGE,
    start_neck,
    start_patches,
    whiten_within_classes,
)

pytestmark = pytest.mark.usefixtures("no_gpu")

DESCRIPTION = {
    "kind": "contrastive",
    "backbone": "resnet_narrow",
    "stem": "small_image",
    "embedding_dim": 6,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.25],
    "hidden_dim": 8,
    "dim": 4,
}


def clouds(rng, per_class=200):
    """Three classes that differ in direction 0 and 1, in the middle of far larger common variation."""
    labels = np.repeat(np.arange(3), per_class)
    means = np.zeros((3, 32))
    means[1, 0], means[2, 1] = 4, 4
    spread = np.repeat([1, 3, 1], [2, 10, 20])
    mixing = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    return (means[labels] + rng.normal(size=(len(labels), 32)) * spread) @ mixing + 3, labels


def test_within_classes_what_varied_most_varies_like_the_rest_and_what_tells_them_apart_comes_first(rng):
    rows, labels = clouds(rng)
    weight, bias = whiten_within_classes(rows, labels, 32, shrinkage=0.3)
    whitened = rows @ weight.T + bias
    means = np.stack([whitened[labels == c].mean(axis=0) for c in range(3)])
    within = empirical_covariance(whitened - means[labels], assume_centered=True)
    before = empirical_covariance(rows - np.stack([rows[labels == c].mean(axis=0) for c in range(3)])[labels])
    # With the ridge, what varied little still varies less.
    assert np.linalg.cond(before) > 10
    assert np.linalg.cond(within) < 3
    between = means.std(axis=0)
    assert between[:2].min() > 5 * between[2:].max()
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-9)
    assert np.linalg.norm(whitened, axis=1).mean() == pytest.approx(np.linalg.norm(rows, axis=1).mean())


def test_classes_hidden_in_common_variation_are_found_by_nearest_neighbours_of_new_rows(rng):
    rows, labels = clouds(rng)
    train = np.arange(len(rows)) % 2 == 0

    def accuracy(features):
        neighbours = KNeighborsClassifier(1).fit(features[train], labels[train])
        return neighbours.score(features[~train], labels[~train])

    weight, bias = whiten_within_classes(rows[train], labels[train], 2, shrinkage=0.3)
    assert accuracy(rows) < 0.8
    assert accuracy(rows @ weight.T + bias) > 0.9


@pytest.mark.parametrize("rows", [np.zeros((4, 5)), np.ones((4, 5)), np.eye(5)[[0, 0, 1, 1]], np.eye(5)[:1]])
def test_rows_that_say_nothing_of_what_varies_give_finite_weights(rows):
    weight, bias = whiten_within_classes(rows, np.arange(len(rows)) // 2, 3)
    assert weight.shape == (3, 5)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()


def test_a_large_ridge_leaves_distances_as_they_were(rng):
    rows, labels = clouds(rng)
    weight, bias = whiten_within_classes(rows, labels, 32, shrinkage=1e6)
    before, after = (pairwise_distances(each[:50]) for each in (rows, rows @ weight.T + bias))
    np.testing.assert_allclose(after / after.max(), before / before.max(), atol=1e-3)


@pytest.mark.parametrize("is_unseen", [False, True])
def test_the_neck_starts_as_what_whitens_the_training_images(rng, is_unseen):
    torch.manual_seed(0)
    model = build_model(DESCRIPTION)
    images = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels, train = np.arange(20) % 2, np.arange(15)
    labels[15:] += 2 * is_unseen
    data = LabelledImages(images, labels, np.array(["train"] * 15 + ["validation"] * 5))
    start_neck(model.encoder, data, batch_size=4)
    assert model.training
    model.eval()
    with torch.inference_mode():
        features = model.encoder.features(torch.from_numpy(images[train])).numpy()
        found = model(torch.from_numpy(images[train]))["embedding"].numpy()
    shrinkage = {"shrinkage": UNSEEN_SHRINKAGE} if is_unseen else {}
    weight, bias = whiten_within_classes(features, labels[train], 6, **shrinkage)
    np.testing.assert_allclose(found, features @ weight.T + bias, rtol=1e-3, atol=1e-4)
    assert model.projection_head[0].in_features == 6


@pytest.mark.parametrize(("held_out", "name"), [(0, "embedding_dim"), (2, "unseen_embedding_dim")])
def test_a_neck_wider_than_the_features_of_weights_is_refused(rng, held_out, name):
    encoder = build_model({**DESCRIPTION, "embedding_dim": 300}).encoder
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    data = LabelledImages(images, np.array([0, 0, 1, held_out]), np.array(["train"] * 3 + ["validation"]))
    with pytest.raises(InputError, match=rf"must be at most the 256 features .* stage1\.{name}=256"):
        start_neck(encoder, data, batch_size=4)


def test_the_first_layer_answers_to_patches_of_train_without_correlation_and_with_one_variance(rng):
    smooth = rng.integers(0, 256, (60, 6, 6, 3)).repeat(4, axis=1).repeat(4, axis=2)
    images = np.clip(smooth + rng.integers(-20, 21, (60, 24, 24, 3)), 0, 255).astype(np.uint8)
    images[40:] = 0
    splits = np.repeat(["train", "validation", "test"], [40, 10, 10]).astype(object)
    data = LabelledImages(images, np.arange(60) % 2, splits)
    description = {**DESCRIPTION, "backbone": "whitened_cnn", "embedding_dim": None}
    encoder = build_model(description).encoder
    start_patches(encoder, data, batch_size=7)
    answers = encoder.backbone.stem(encoder.pixels(torch.from_numpy(images[:40]))).detach()
    rows = answers.transpose(0, 1).flatten(1).double().numpy()
    np.testing.assert_allclose(rows[12:], -rows[:12], atol=1e-5)
    moments = rows[:12] @ rows[:12].T / rows.shape[1]
    np.testing.assert_allclose(moments, np.eye(12), atol=0.03)


def test_images_outside_of_train_do_not_set_the_first_layer(rng):
    images = rng.integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
    splits = np.repeat(["train", "test"], 10).astype(object)
    description = {**DESCRIPTION, "backbone": "whitened_cnn", "embedding_dim": None}
    kernels = []
    for others in (images[10:], np.zeros_like(images[10:])):
        data = LabelledImages(np.concatenate([images[:10], others]), np.arange(20) % 2, splits)
        encoder = build_model(description).encoder
        start_patches(encoder, data, batch_size=4)
        kernels.append(encoder.backbone.stem.weight)
    assert torch.equal(*kernels)
