import numpy as np
import pandas as pd
import pytest
import torch

from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def params():
    knn = {"k": 5, "temperature": 0.1}
    bootstrap = {"num_resamples": 10, "seed": 0}
    curve = {"counts": (1, 4), "num_draws": 2}
    return EvaluationParameters(
        batch_size=8,
        ks=(1,),
        recall_ks=(1, 3, 1000),
        knn=knn,
        num_neighbours=3,
        num_suspicious=9,
        learning_curve=curve,
        bootstrap=bootstrap,
    )


@pytest.fixture
def samples(rng):
    """Sixty images of three classes, of which every third is a test image."""
    label = rng.integers(0, 3, 60)
    return pd.DataFrame({"id": [f"image {row}" for row in range(60)], "label": label}).assign(
        split=np.tile(["train", "test", "validation"], 20),
        class_name=np.array(["a", "b", "c"])[label],
        duplicate_group=range(60),
    )


@pytest.fixture
def embeddings(rng, samples):
    """A direction for each class, and logits that say it."""
    rows = np.eye(3, 6)[samples["label"]] + 0.1 * rng.normal(size=(60, 6))
    tensors = {"embedding": torch.tensor(rows, dtype=torch.float32), "logits": torch.tensor(5 * rows[:, :3])}
    return NamedTensors(tensors, {"sample_ids": samples["id"].tolist()})
