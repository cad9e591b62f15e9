import numpy as np
import pytest


@pytest.fixture
def embeddings(rng):
    """Overlapping classes of unequal size."""
    query_labels, reference_labels = np.repeat([0, 1, 2], [5, 9, 6]), np.repeat([0, 1, 2], [3, 11, 7])
    centers = rng.normal(size=(3, 4))
    queries = centers[query_labels] + rng.normal(size=(20, 4))
    references = centers[reference_labels] + rng.normal(size=(21, 4))
    return queries, query_labels, references, reference_labels
