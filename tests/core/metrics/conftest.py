import numpy as np
import pytest
import torch
from tests.gpu import needs_gpu

from supcon_pipeline.core import device as device_module
from supcon_pipeline.core.metrics import device_pairs, device_ranking


@pytest.fixture
def embeddings(rng):
    """Overlapping classes of unequal size."""
    query_labels, reference_labels = np.repeat([0, 1, 2], [5, 9, 6]), np.repeat([0, 1, 2], [3, 11, 7])
    centers = rng.normal(size=(3, 4))
    queries = centers[query_labels] + rng.normal(size=(20, 4))
    references = centers[reference_labels] + rng.normal(size=(21, 4))
    return queries, query_labels, references, reference_labels


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def both_ways(request, monkeypatch):
    """Calls a function with numpy, and again as on a GPU; returns both results.

    Without a GPU, the CPU stands in for it, with the memory that is given in bytes.
    """

    def call(function, *args, memory=None, **kwargs):
        monkeypatch.setattr(device_module, "find_gpu", lambda: None)
        expected = function(*args, **kwargs)
        monkeypatch.setattr(device_module, "find_gpu", lambda: torch.device(request.param))
        if memory or request.param == "cpu":
            for module in (device_ranking, device_pairs):
                monkeypatch.setattr(module, "free_memory", lambda _: memory or 2**30)
        return function(*args, **kwargs), expected

    return call


@pytest.fixture
def many(rng):
    """80 rows of 12 classes; some rows equal others, of their class or not, so that there are ties."""
    labels = rng.integers(0, 12, 80)
    embeddings = rng.normal(size=(12, 6))[labels] + rng.normal(size=(80, 6))
    embeddings[60:] = 3 * embeddings[rng.integers(0, 60, 20)]
    return embeddings, labels
