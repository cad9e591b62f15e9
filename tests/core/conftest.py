import faiss
import numpy as np
import pytest
import torch
from tests.gpu import hidden_gpus

from supcon_pipeline.core.data.images import LabelledImages


@pytest.fixture(autouse=True)
def _seeded_on_one_thread():
    torch.manual_seed(0)
    # Threads that wait for one another made the suite 15 times slower on two cores that were in use.
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


@pytest.fixture(scope="module")
def no_gpu():
    """For a module of tests that compare the bits of a CPU: without a GPU in sight."""
    with hidden_gpus():
        yield


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
    return LabelledImages(images, labels, splits)
