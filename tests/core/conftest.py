import numpy as np
import pytest
import torch

from supcon_pipeline.core.stages import LabelledSplits


@pytest.fixture(autouse=True)
def _seeded_torch():
    torch.manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def labelled_splits(rng):
    """Three classes told apart by their brightness: 24 images for training, 9 for each other split."""
    labels = np.tile([0, 1, 2], 14)
    splits = np.repeat(np.array(["train", "validation", "test"], dtype=object), [24, 9, 9])
    noise = rng.integers(0, 60, (42, 8, 8, 3))
    images = (noise + 90 * labels[:, None, None, None]).astype(np.uint8)
    return LabelledSplits(images, labels, splits)
