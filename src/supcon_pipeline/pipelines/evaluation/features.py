"""Nodes of `evaluation` that score features by what each test image finds."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.class_splits import Search
from supcon_pipeline.core.data.images import LabelledEmbeddings
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters
from supcon_pipeline.pipelines.evaluation.limits import lacks_classes, limit_queries, limited_search

# Metrics of a feature, and what they are the means of: a row per test image.
Scores = tuple[dict[str, Any], pd.DataFrame]


def score_features(embeddings: NamedTensors, samples: pd.DataFrame, params: EvaluationParameters) -> Scores:
    """Retrieval, clustering and k-NN metrics of both features: test images searched among training images.

    Test images of classes that train lacks are searched among the other test images.

    Returns:
        The metrics by feature, and those of the embedding for each image that is searched for.
    """
    is_unseen = lacks_classes(samples)
    known = samples if is_unseen else limit_queries(samples, params, "test")
    labelled = LabelledEmbeddings.of(embeddings, known)
    outputs = [name for name in ("embedding", "projection") if name in labelled.outputs]
    if is_unseen:
        search = limited_search(samples, params)
        scores = {name: _score_unseen(labelled, name, search, params) for name in outputs}
    else:
        search = Search(labelled.rows_of("test"), labelled.rows_of("train"))
        scores = {name: _score_known(labelled, name, params) for name in outputs}
    metrics = {name: of_feature for name, (of_feature, _) in scores.items()}
    return {**metrics, **_score_other_searches(labelled, search, params, is_unseen)}, scores["embedding"][1]


def _score_known(labelled: LabelledEmbeddings, name: str, params: EvaluationParameters) -> Scores:
    from supcon_pipeline.core.metrics.features import feature_metrics, feature_values

    queries, references = labelled.select(name, "test"), labelled.select(name, "train")
    within = params.within(len(references[0]))
    values = feature_values(*queries, *references, within.ks, within.knn.k, within.knn.temperature)
    table = pd.DataFrame({"row": labelled.rows_of("test"), **values.voted})
    # NaN where no reference has the class.
    ranked = pd.DataFrame(values.ranked, index=values.rows).reindex(table.index)
    return feature_metrics(values, *queries, **params.bootstrap.model_dump()), table.join(ranked)


def _score_unseen(
    labelled: LabelledEmbeddings, name: str, search: Search, params: EvaluationParameters
) -> Scores:
    from supcon_pipeline.core.metrics.unseen import unseen_feature_metrics, unseen_values

    rows = labelled.outputs[name]
    values = unseen_values(rows, labelled.labels, search, (1, *params.recall_ks))
    bootstrap = params.bootstrap.model_dump()
    metrics = unseen_feature_metrics(values, rows, labelled.labels, search, **bootstrap)
    return metrics, pd.DataFrame({"row": values.rows, **values.values})


def _score_other_searches(
    labelled: LabelledEmbeddings, search: Search, params: EvaluationParameters, is_unseen: bool
) -> dict[str, Any]:
    """The embedding searched in the other ways that were asked for."""
    from supcon_pipeline.core.metrics.features import known_search_metrics
    from supcon_pipeline.core.metrics.other_searches import expanded_values, reranked_values
    from supcon_pipeline.core.metrics.unseen import search_metrics

    ways = {
        "reranked": (reranked_values, params.reranking),
        "expanded": (expanded_values, params.query_expansion),
    }
    ks = (1, *(params.recall_ks if is_unseen else params.within(len(search.gallery)).ks))
    found = {
        name: values_of(labelled.outputs["embedding"], labelled.labels, search, ks, options.model_dump())
        for name, (values_of, options) in ways.items()
        if options is not None
    }
    bootstrap = params.bootstrap.model_dump()
    return {
        name: search_metrics(values, labelled.labels, **bootstrap)
        if is_unseen
        else known_search_metrics(values, **bootstrap)
        for name, values in found.items()
    }


def compare_models(
    query_scores: pd.DataFrame,
    baseline_query_scores: pd.DataFrame,
    published_query_scores: pd.DataFrame,
    samples: pd.DataFrame,
    params: EvaluationParameters,
) -> dict[str, Any]:
    """What the embedding gains over the baseline's, and over that of the weights it started from.

    Each is a mean of differences on the same test image, with an interval over images, or over classes where
    train lacks them.

    Raises:
        InputError: where the models were scored on other images.
    """
    from supcon_pipeline.core.metrics.gains import paired_gains

    others = {"published": published_query_scores, "baseline": baseline_query_scores}
    rows = query_scores["row"].to_numpy()
    for name, table in others.items():
        if len(table) and not np.array_equal(table["row"], rows):
            raise InputError(
                f"{name}_query_scores must be of the {len(rows):,} test images of query_scores, got "
                f"{len(table):,}; type: kedro run --pipelines evaluation"
            )
    labels = samples["label"].to_numpy()[rows] if lacks_classes(samples) else None
    values, bootstrap = _columns(query_scores), params.bootstrap.model_dump()
    return {
        # From scratch, there is no start to compare with.
        name: paired_gains(values, _columns(table), labels, **bootstrap)
        for name, table in others.items()
        if len(table)
    }


def _columns(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    return {str(name): column.to_numpy() for name, column in scores.drop(columns="row").items()}
