"""Embeddings and scores that are not finite are refused wherever they enter, in one line that says so."""

import numpy as np
import pandas as pd
import pytest
import torch

from supcon_pipeline.core.inference.image_encoder import ImageEncoder
from supcon_pipeline.core.inference.predictions import (
    add_classes,
    classify_embeddings,
    neighbour_distances,
    tabulate_predictions,
)
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.metrics.calibration import fit_temperature, reliability_bins
from supcon_pipeline.core.metrics.classification import image_outcomes
from supcon_pipeline.core.metrics.clustering import clustering_metrics, silhouette
from supcon_pipeline.core.metrics.detection import detection_metrics
from supcon_pipeline.core.metrics.features import feature_values
from supcon_pipeline.core.metrics.label_errors import suspicious_labels
from supcon_pipeline.core.metrics.learning_curve import learning_curve
from supcon_pipeline.core.models.embed import embed_by
from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.search.index import build_index, search_index
from supcon_pipeline.core.search.knn import classify_by_prefixes, knn_probabilities, neighbour_log_votes
from supcon_pipeline.core.search.neighbours import find_nearest, search_neighbours, search_other_neighbours

pytestmark = pytest.mark.usefixtures("no_gpu")

GOOD = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
LABELS, FIRST, LAST = np.arange(20) % 4, np.arange(10), np.arange(10, 20)
TABLE = pd.DataFrame({"image": [f"i{row}" for row in range(20)]})
CLASSIFIER = NamedTensors({}, {"encoder_hash": "abc"})


def encoder_giving(rows):
    metadata = {"outputs": ["embedding"], "class_names": ["a"], "image_size": 4, "num_channels": 1}
    return ImageEncoder(lambda _images: {"embedding": rows[:1]}, {**metadata, "crop": "pad"})


CALLS = {
    "search_neighbours, queries": lambda bad: search_neighbours(bad, GOOD, 3),
    "search_neighbours, references": lambda bad: search_neighbours(GOOD, bad, 3, "euclidean"),
    "search_other_neighbours": lambda bad: search_other_neighbours(bad, FIRST, 3),
    "find_nearest": lambda bad: find_nearest(bad, FIRST, LAST),
    "classify_by_prefixes": lambda bad: classify_by_prefixes(bad, GOOD, LABELS, [1, 3], 0.07),
    "neighbour_log_votes": lambda bad: neighbour_log_votes(GOOD, bad, LABELS, 3, 0.07, 4),
    "knn_probabilities": lambda bad: knn_probabilities(bad, np.zeros((20, 8), dtype=int), 4),
    "build_index": lambda bad: build_index(bad, 100, 4, 8, 8),
    "search_index": lambda bad: search_index(build_index(GOOD, 100, 4, 8, 8), bad, 3),
    "suspicious_labels": lambda bad: suspicious_labels(bad, LABELS, FIRST, 3, 0.07, 5),
    "feature_values": lambda bad: feature_values(bad, LABELS, GOOD, LABELS, (1,), 3, 0.07),
    "learning_curve, queries": lambda bad: learning_curve(bad, LABELS, GOOD, LABELS, (1,), 2, 3, 0.07, 2, 0),
    "learning_curve, references": lambda bad: learning_curve(
        GOOD, LABELS, bad, LABELS, (1,), 2, 3, 0.07, 2, 0
    ),
    "clustering_metrics": lambda bad: clustering_metrics(bad, LABELS),
    "silhouette": lambda bad: silhouette(bad, LABELS),
    "detection_metrics, inside": lambda bad: detection_metrics(bad[:, 0], GOOD[:, 0]),
    "detection_metrics, outside": lambda bad: detection_metrics(GOOD[:, 0], bad[:, 0]),
    "fit_temperature": lambda bad: fit_temperature(bad, LABELS),
    "reliability_bins": lambda bad: reliability_bins(bad[:, 0], LABELS == 0),
    "image_outcomes": lambda bad: image_outcomes(bad, LABELS),
    "classify_embeddings": lambda bad: classify_embeddings(CLASSIFIER, bad, "abc"),
    "tabulate_predictions": lambda bad: tabulate_predictions(TABLE, torch.from_numpy(bad), list("abcdefgh")),
    "add_classes": lambda bad: add_classes(TABLE, torch.from_numpy(bad), 1.0, list("abcdefgh")),
    "neighbour_distances": lambda bad: neighbour_distances(bad, 1),
    "ImageEncoder": lambda bad: encoder_giving(bad).embed(np.zeros((4, 4), dtype=np.uint8)),
}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CALLS)
def test_numbers_that_are_not_finite_are_refused_in_one_line(name, value):
    bad = GOOD.copy()
    bad[0, 0] = value
    with pytest.raises(InputError, match="must be finite, got NaN or infinity") as error:
        CALLS[name](bad)
    assert "\n" not in str(error.value)


def test_the_row_is_named_and_a_length_that_no_float32_holds_is_refused_too():
    bad = GOOD.copy()
    bad[7] = 1e30
    with pytest.raises(InputError, match="queries must be finite, got NaN or infinity in row 7;"):
        search_neighbours(bad, GOOD, 3)


def test_an_encoder_with_nan_in_its_weights_gives_no_embeddings():
    description = {"kind": "contrastive", "backbone": "resnet_narrow", "stem": "small_image"}
    description |= {"mean": [0.5], "std": [0.25], "hidden_dim": 4, "dim": 2}
    tensors = dict(build_model(description).state_dict())
    tensors["encoder.backbone.stem.0.weight"] = torch.full_like(
        tensors["encoder.backbone.stem.0.weight"], torch.nan
    )
    state = NamedTensors(tensors, {"model": description})
    with pytest.raises(
        InputError, match="embedding must be finite, got NaN or infinity in row 0; the encoder"
    ):
        embed_by(state, np.zeros((3, 8, 8, 1), dtype=np.uint8), 2, torch.device("cpu"))
