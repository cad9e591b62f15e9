"""Graph of `evaluation`."""

from kedro.pipeline import Node, Pipeline, node, pipeline

from supcon_pipeline.pipelines.evaluation.nodes import (
    collect_metrics,
    embed_samples,
    find_neighbours,
    find_suspicious_labels,
    list_confused_pairs,
    predict_baseline,
    predict_samples,
    score_baseline_classifier,
    score_classifier,
    score_features,
    score_knn,
    score_pixels,
)

# What all metrics are put together from.
_COLLECTED = (
    "feature_metrics",
    "classifier_metrics",
    "knn_metrics",
    "pixel_metrics",
    "baseline_feature_metrics",
    "baseline_classifier_metrics",
    "embeddings",
    "baseline_embeddings",
    "classifier",
    "dataset_card",
    "run_record",
)


def create_pipeline() -> Pipeline:
    """Encoder, classifier, baseline and packed images to embeddings, predictions and metrics."""
    return pipeline(
        [
            *_score("encoder", ""),
            *_score("baseline_model", "baseline_"),
            *_classify(),
            *_list_evidence(),
            node(collect_metrics, {name: name for name in _COLLECTED}, "metrics", name="collect_metrics"),
        ],
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
    )


def _score(model: str, prefix: str) -> list[Node]:
    """The same nodes for the contrastive encoder and for the baseline."""
    return [
        node(
            embed_samples,
            [model, "prepared_images", "samples", "dataset_card", "params:evaluation"],
            f"{prefix}embeddings",
            name=f"embed_{prefix}samples",
        ),
        node(
            score_features,
            [f"{prefix}embeddings", "samples", "params:evaluation"],
            f"{prefix}feature_metrics",
            name=f"score_{prefix}features",
        ),
    ]


def _classify() -> list[Node]:
    """Predictions and metrics of every classifier, raw pixels among them."""
    return [
        node(
            score_pixels,
            ["prepared_images", "samples", "params:evaluation"],
            "pixel_metrics",
            name="score_pixels",
        ),
        node(
            predict_samples,
            ["classifier", "embeddings", "samples", "dataset_card"],
            "predictions",
            name="predict_samples",
        ),
        node(
            predict_baseline,
            ["baseline_embeddings", "samples", "dataset_card"],
            "baseline_predictions",
            name="predict_baseline",
        ),
        node(
            score_classifier,
            ["classifier", "embeddings", "samples", "dataset_card", "params:evaluation"],
            "classifier_metrics",
            name="score_classifier",
        ),
        node(
            score_baseline_classifier,
            ["baseline_embeddings", "samples", "dataset_card", "params:evaluation"],
            "baseline_classifier_metrics",
            name="score_baseline_classifier",
        ),
        node(
            score_knn,
            ["embeddings", "samples", "dataset_card", "params:evaluation"],
            "knn_metrics",
            name="score_knn",
        ),
    ]


def _list_evidence() -> list[Node]:
    """What stands behind the numbers: images and pairs of classes to look at."""
    return [
        node(
            find_neighbours,
            ["embeddings", "samples", "params:evaluation"],
            "neighbours",
            name="find_neighbours",
        ),
        node(
            find_suspicious_labels,
            ["embeddings", "samples", "dataset_card", "params:evaluation"],
            "suspicious_labels",
            name="find_suspicious_labels",
        ),
        node(
            list_confused_pairs,
            ["classifier_metrics", "dataset_card"],
            "confused_pairs",
            name="list_confused_pairs",
        ),
    ]
