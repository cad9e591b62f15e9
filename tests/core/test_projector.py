import numpy as np
import torch

from supcon_pipeline.core import projector
from supcon_pipeline.core.projector import small_pictures


def test_small_images_stay_as_they_are_and_gray_becomes_colour(rng):
    images = rng.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    pictures = small_pictures(images)
    assert pictures.shape == (5, 3, 8, 8)
    assert torch.equal(pictures[:, 2], torch.from_numpy(images[..., 0]).float() / 255)


def test_large_images_are_averaged_down():
    images = np.zeros((1, 128, 128, 3), dtype=np.uint8)
    images[:, ::2] = 255
    assert torch.allclose(small_pictures(images), torch.tensor(0.5))


def test_all_pictures_fit_one_texture(monkeypatch):
    monkeypatch.setattr(projector, "MAX_PIXELS", 80)
    # Ten columns of eight pixels.
    pictures = projector.small_pictures(np.zeros((91, 32, 32, 1), dtype=np.uint8))
    assert pictures.shape == (91, 3, 8, 8)
