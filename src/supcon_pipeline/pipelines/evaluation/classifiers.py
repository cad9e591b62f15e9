"""Nodes of `evaluation` that score classifiers.

Where test holds classes that train lacks, no classifier knows them, and what these nodes give is empty.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import LabelledEmbeddings
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters
from supcon_pipeline.pipelines.evaluation.limits import limit_queries

# The logits of the images of a split.
LogitsOf = Callable[[str], np.ndarray]


def predict_samples(
    classifier: NamedTensors, embeddings: NamedTensors, samples: pd.DataFrame, dataset_card: dict[str, Any]
) -> pd.DataFrame:
    """One row per test image: its label and what the classifier predicts, with the probability."""
    labelled = LabelledEmbeddings.of(embeddings, samples)
    logits_of = _by_classifier(classifier, embeddings, labelled)
    return _tabulate(logits_of, labelled, samples, dataset_card)


def predict_baseline(
    baseline_embeddings: NamedTensors, samples: pd.DataFrame, dataset_card: dict[str, Any]
) -> pd.DataFrame:
    """One row per test image: its label and what the baseline predicts, with the probability."""
    labelled = LabelledEmbeddings.of(baseline_embeddings, samples)
    return _tabulate(_beside_embeddings(labelled), labelled, samples, dataset_card)


def score_classifier(
    classifier: NamedTensors,
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the linear classifier on the test images, calibrated on the validation images."""
    labelled = LabelledEmbeddings.of(embeddings, samples)
    return _score_logits(_by_classifier(classifier, embeddings, labelled), labelled, dataset_card, params)


def score_own_logits(
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the logits beside the embeddings on the test images, calibrated on the validation images."""
    labelled = LabelledEmbeddings.of(embeddings, samples)
    return _score_logits(_beside_embeddings(labelled), labelled, dataset_card, params)


def score_knn(
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of weighted k-NN among the training embeddings, calibrated on the validation images."""
    from supcon_pipeline.core.search.knn import neighbour_log_votes

    labelled = LabelledEmbeddings.of(embeddings, limit_queries(samples, params, "validation", "test"))
    references, labels = labelled.select("embedding", "train")
    votes = {
        "num_classes": len(dataset_card["class_names"]),
        **params.within(len(references)).knn.model_dump(),
    }

    def logits_of(split: str) -> np.ndarray:
        return neighbour_log_votes(labelled.select("embedding", split)[0], references, labels, **votes)

    return _score_logits(logits_of, labelled, dataset_card, params)


def score_learning_curve(
    embeddings: NamedTensors, samples: pd.DataFrame, params: EvaluationParameters
) -> pd.DataFrame:
    """Accuracy on the test images of classifiers that know few training embeddings of each class, and all."""
    from supcon_pipeline.core.metrics.learning_curve import COLUMNS, learning_curve

    labelled = LabelledEmbeddings.of(embeddings, limit_queries(samples, params, "test"))
    if labelled.has_unseen_classes:
        return pd.DataFrame(columns=COLUMNS)
    return pd.DataFrame(
        learning_curve(
            *labelled.select("embedding", "test"),
            *labelled.select("embedding", "train"),
            params.learning_curve.counts,
            params.learning_curve.num_draws,
            params.knn.k,
            params.knn.temperature,
            **params.bootstrap.model_dump(),
        )
    )


def _by_classifier(
    classifier: NamedTensors, embeddings: NamedTensors, labelled: LabelledEmbeddings
) -> LogitsOf:
    """Logits by the classifier of stage 2."""
    from supcon_pipeline.core.inference.predictions import classify_embeddings

    def logits_of(split: str) -> np.ndarray:
        rows, _ = labelled.select("embedding", split)
        return classify_embeddings(classifier, rows, embeddings.metadata["model_hash"]).numpy()

    return logits_of


def _beside_embeddings(labelled: LabelledEmbeddings) -> LogitsOf:
    return lambda split: labelled.select("logits", split)[0]


def _tabulate(
    logits_of: LogitsOf, labelled: LabelledEmbeddings, samples: pd.DataFrame, dataset_card: dict[str, Any]
) -> pd.DataFrame:
    """What logits say of the test images."""
    import torch

    from supcon_pipeline.core.inference.predictions import tabulate_predictions

    tested = samples.iloc[labelled.rows_of("test")]
    if labelled.has_unseen_classes:
        return tested.iloc[:0].assign(predicted=0, predicted_class="", probability=0.0)
    return tabulate_predictions(tested, torch.from_numpy(logits_of("test")), dataset_card["class_names"])


def _score_logits(
    logits_of: LogitsOf,
    labelled: LabelledEmbeddings,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """The metrics of logits on test and validation."""
    from supcon_pipeline.core.metrics.class_sizes import accuracy_by_size
    from supcon_pipeline.core.metrics.classification import classification_metrics

    if labelled.has_unseen_classes:
        return {}
    metrics = classification_metrics(
        logits_of("test"),
        labelled.labels[labelled.rows_of("test")],
        logits_of("validation"),
        labelled.labels[labelled.rows_of("validation")],
        dataset_card["class_names"],
        **params.bootstrap.model_dump(),
    )
    return {**metrics, **accuracy_by_size(metrics["per_class"], dataset_card["counts"]["train"])}
