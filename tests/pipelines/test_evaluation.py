import inspect
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.data import DataPrepParameters
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters
from supcon_pipeline.pipelines.evaluation import classifiers, evidence, nodes
from supcon_pipeline.pipelines.evaluation.nodes import score_pixels
from supcon_pipeline.pipelines.index.nodes import index_embeddings

CARD = {"class_names": ["a", "b", "c"]}


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


@pytest.mark.parametrize(
    "node",
    [
        nodes.score_features,
        classifiers.score_learning_curve,
        evidence.find_neighbours,
        evidence.find_suspicious_labels,
        classifiers.predict_samples,
        classifiers.predict_baseline,
        classifiers.score_classifier,
        classifiers.score_own_logits,
        classifiers.score_knn,
        nodes.score_without_near_duplicates,
        index_embeddings,
    ],
)
def test_samples_in_another_order_than_the_embeddings_are_refused(node, embeddings, samples, params):
    parts = {"embeddings": embeddings, "baseline_embeddings": embeddings, "dataset_card": CARD}
    parts |= {
        "classifier": None,
        "embedding_duplicates": None,
        "params": params,
        "samples": samples.iloc[::-1].reset_index(drop=True),
    }
    names = inspect.signature(node).parameters
    with pytest.raises(ValueError, match=r"must have sample 'image 59' at row 0, .*, got 'image 0'"):
        node(**{name: parts[name] for name in names})


def test_images_that_were_removed_from_all_splits_are_not_suspicious(embeddings, samples, params):
    # A wrong label of an image in use, and of one that was removed.
    samples.loc[[31, 40], "label"] = (samples.loc[[31, 40], "label"] + 1) % 3
    suspected = evidence.find_suspicious_labels(embeddings, samples, CARD, params)
    assert sorted(suspected["sample"]) == [31, 40]
    samples.loc[[3, 40], "split"] = "removed"
    suspected = evidence.find_suspicious_labels(embeddings, samples, CARD, params)
    assert suspected[["sample", "id"]].to_numpy().tolist() == [[31, "image 31"]]
    assert suspected["suggested"].tolist() == [(samples["label"][31] - 1) % 3]


def test_pixels_of_photographs_are_compared_at_32_pixels(rng, params, samples, monkeypatch):
    from supcon_pipeline.core.search import neighbours

    compared, find_nearest = [], neighbours.find_nearest
    monkeypatch.setattr(
        neighbours, "find_nearest", lambda rows, *others: compared.append(rows) or find_nearest(rows, *others)
    )
    small = rng.integers(0, 256, (60, 32, 32, 1), dtype=np.uint8)
    # A chessboard on top, whose mean is nothing.
    grain = 40 * (1 - 2 * (np.indices((64, 64)).sum(axis=0) % 2))[:, :, None]
    large = np.clip(small.repeat(2, axis=1).repeat(2, axis=2), 40, 215).astype(int) + grain
    scores = [
        score_pixels(images, samples, params) for images in (np.clip(small, 40, 215), large.astype(np.uint8))
    ]
    assert scores[0] == scores[1]
    assert [rows.shape for rows in compared] == [(60, 1024)] * 2


def test_test_images_with_a_duplicate_in_train_are_left_out_of_the_metrics_without_them(
    embeddings, samples, params, monkeypatch
):
    scored = []
    monkeypatch.setattr(
        nodes, "score_classifier", lambda _, __, others, *___: scored.append(others) or {"calibrated": {}}
    )
    score = partial(nodes.score_without_near_duplicates, embeddings, None)
    none = pd.DataFrame({"first": []})
    assert score(samples, none, CARD, params) == {}
    # A test image like one of train, two like one of validation and one another.
    samples.loc[1, "duplicate_group"] = 0
    samples.loc[[4, 7], "duplicate_group"] = 2
    found = score(samples, none, CARD, params)
    assert (found["num_images"], found["num_left_out"]) == (19, 1)
    assert scored[0].loc[scored[0]["split"] == "test", "id"].tolist() == samples["id"][4::3].tolist()
    expected = nodes.score_features(
        embeddings, samples.assign(split=samples["split"].mask(samples.index == 1)), params
    )
    assert found["embedding"] == expected["embedding"]
    # And one that the embedding led to.
    assert score(samples, pd.DataFrame({"first": [10]}), CARD, params)["num_left_out"] == 2
    samples.loc[samples["split"] == "test", "duplicate_group"] = 0
    assert score(samples, none, CARD, params) == {}


def test_the_embedding_leads_to_mirrored_copies_that_the_pixels_confirm(rng, samples):
    from scipy.ndimage import gaussian_filter

    images = gaussian_filter(rng.normal(size=(60, 32, 32, 1)), (0, 2, 2, 0)) * 400 + 128
    images = np.clip(images, 0, 255).astype(np.uint8)
    # Test images: one is a mirrored copy, one is known to be a copy, one is too far in the embedding.
    for row in (1, 4, 7):
        images[row] = images[0][:, ::-1]
    samples.loc[4, "duplicate_group"] = 0
    table = {
        "query": [1, 4, 7, 10],
        "reference": [0, 0, 0, 0],
        "similarity": [0.99, 0.99, 0.5, 0.99],
        "rank": 0,
    }
    data_params = DataPrepParameters.model_construct(near_duplicate_similarity=0.95)
    found = evidence.find_embedding_duplicates(pd.DataFrame(table), samples, images, data_params)
    assert found[["first_id", "second_id", "is_mirrored"]].to_numpy().tolist() == [
        ["image 1", "image 0", True]
    ]
