import numpy as np
import pytest


@pytest.fixture
def queries(rng):
    return rng.normal(size=(7, 4)).astype(np.float32)


@pytest.fixture
def references(rng):
    return rng.normal(size=(12, 4)).astype(np.float32) * rng.uniform(0.1, 9, (12, 1)).astype(np.float32)
