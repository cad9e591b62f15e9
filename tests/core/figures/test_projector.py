import numpy as np
import torch

from supcon_pipeline.core.figures import projector
from supcon_pipeline.core.figures.projector import small_pictures


def test_small_images_stay_as_they_are_and_gray_becomes_colour(rng):
    images = rng.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    pictures = small_pictures(images, np.arange(5))
    assert pictures.shape == (5, 3, 8, 8)
    assert torch.equal(pictures[:, 2], torch.from_numpy(images[..., 0]).float() / 255)


def test_large_images_are_averaged_down():
    images = np.zeros((1, 128, 128, 3), dtype=np.uint8)
    images[:, ::2] = 255
    assert torch.allclose(small_pictures(images, np.zeros(1, int)), torch.tensor(0.5))


def test_all_pictures_fit_one_texture(monkeypatch):
    monkeypatch.setattr(projector, "MAX_PIXELS", 80)
    # Ten columns of eight pixels.
    pictures = projector.small_pictures(np.zeros((91, 32, 32, 1), dtype=np.uint8), np.arange(91))
    assert pictures.shape == (91, 3, 8, 8)


def test_pictures_are_those_of_the_indices_whatever_is_shrunk_at_once(rng, monkeypatch):
    images = rng.integers(0, 256, (9, 128, 128, 3), dtype=np.uint8)
    indices = np.array([7, 0, 3, 4, 8])
    whole = images[indices].reshape(5, 64, 2, 64, 2, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    for batch_size in (1, 2, 5):
        monkeypatch.setattr(projector, "BATCH_SIZE", batch_size)
        torch.testing.assert_close(small_pictures(images, indices), torch.from_numpy(whole).float())
