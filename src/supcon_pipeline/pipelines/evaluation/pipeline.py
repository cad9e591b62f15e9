"""Graph of `evaluation`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.evaluation.classifiers import (
    predict_baseline,
    predict_samples,
    score_classifier,
    score_knn,
    score_learning_curve,
    score_own_logits,
)
from supcon_pipeline.pipelines.evaluation.evidence import (
    find_embedding_duplicates,
    find_neighbours,
    find_suspicious_labels,
    list_confused_pairs,
)
from supcon_pipeline.pipelines.evaluation.features import compare_models, score_features
from supcon_pipeline.pipelines.evaluation.nodes import (
    collect_metrics,
    embed_samples,
    score_pixels,
    score_published,
    score_verification,
    score_without_near_duplicates,
)

# What all metrics are put together from.
_COLLECTED = (
    "feature_metrics",
    "classifier_metrics",
    "knn_metrics",
    "pixel_metrics",
    "published_metrics",
    "near_duplicate_metrics",
    "gains",
    "baseline_feature_metrics",
    "baseline_classifier_metrics",
    "verification_metrics",
    "baseline_verification_metrics",
    "embeddings",
    "baseline_embeddings",
    "classifier",
    "samples",
    "query_scores",
    "dataset_card",
    "run_record",
)


def create_pipeline() -> Pipeline:
    """Encoder, classifier, baseline and packed images to embeddings, predictions and metrics."""
    return Pipeline(
        [
            *_score("encoder", ""),
            *_score("baseline_model", "baseline_"),
            *_classify(),
            *_score_subset(),
            Node(
                func=compare_models,
                inputs=[f"{prefix}query_scores" for prefix in ("", "baseline_", "published_")]
                + ["samples", "params:evaluation"],
                outputs="gains",
                name="compare_models",
            ),
            *_list_evidence(),
            Node(
                func=collect_metrics,
                inputs={**{name: name for name in _COLLECTED}, "params": "params:evaluation"},
                outputs="metrics",
                name="collect_metrics",
            ),
        ],
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
        tags="evaluation",
    )


def _score(model: str, prefix: str) -> list[Node]:
    """The same nodes for the contrastive encoder and for the baseline."""
    return [
        Node(
            func=embed_samples,
            inputs=[model, "prepared_images", "samples", "dataset_card", "params:evaluation"],
            outputs=f"{prefix}embeddings",
            name=f"embed_{prefix}samples",
        ),
        Node(
            func=score_features,
            inputs=[f"{prefix}embeddings", "samples", "params:evaluation"],
            outputs=[f"{prefix}feature_metrics", f"{prefix}query_scores"],
            name=f"score_{prefix}features",
        ),
        Node(
            func=score_verification,
            inputs=[f"{prefix}embeddings", "samples", "params:evaluation"],
            outputs=f"{prefix}verification_metrics",
            name=f"score_{prefix}verification",
        ),
    ]


def _classify() -> list[Node]:
    """Predictions and metrics of every classifier, raw pixels and published weights among them."""
    return [
        Node(
            func=score_published,
            inputs=["published_embeddings", "embeddings", "samples", "dataset_card", "params:evaluation"],
            outputs=["published_metrics", "published_query_scores"],
            name="score_published",
        ),
        Node(
            func=score_pixels,
            inputs=["prepared_images", "samples", "params:evaluation"],
            outputs="pixel_metrics",
            name="score_pixels",
        ),
        Node(
            func=predict_samples,
            inputs=["classifier", "embeddings", "samples", "dataset_card"],
            outputs="predictions",
            name="predict_samples",
        ),
        Node(
            func=predict_baseline,
            inputs=["baseline_embeddings", "samples", "dataset_card"],
            outputs="baseline_predictions",
            name="predict_baseline",
        ),
        Node(
            func=score_classifier,
            inputs=["classifier", "embeddings", "samples", "dataset_card", "params:evaluation"],
            outputs="classifier_metrics",
            name="score_classifier",
        ),
        Node(
            func=score_own_logits,
            inputs=["baseline_embeddings", "samples", "dataset_card", "params:evaluation"],
            outputs="baseline_classifier_metrics",
            name="score_baseline_classifier",
        ),
        Node(
            func=score_knn,
            inputs=["embeddings", "samples", "dataset_card", "params:evaluation"],
            outputs="knn_metrics",
            name="score_knn",
        ),
        Node(
            func=score_learning_curve,
            inputs=["embeddings", "samples", "params:evaluation"],
            outputs="learning_curve",
            name="score_learning_curve",
        ),
    ]


def _score_subset() -> list[Node]:
    """The same metrics where training has seen no copy of an image."""
    return [
        Node(
            func=find_embedding_duplicates,
            inputs=["neighbours", "samples", "prepared_images", "params:data_prep"],
            outputs="embedding_duplicates",
            name="find_embedding_duplicates",
        ),
        Node(
            func=score_without_near_duplicates,
            inputs=[
                "embeddings",
                "classifier",
                "samples",
                "embedding_duplicates",
                "dataset_card",
                "params:evaluation",
            ],
            outputs="near_duplicate_metrics",
            name="score_without_near_duplicates",
        ),
    ]


def _list_evidence() -> list[Node]:
    """What stands behind the numbers: images and pairs of classes to look at."""
    return [
        Node(
            func=find_neighbours,
            inputs=["embeddings", "samples", "params:evaluation"],
            outputs="neighbours",
            name="find_neighbours",
        ),
        Node(
            func=find_suspicious_labels,
            inputs=["embeddings", "samples", "dataset_card", "params:evaluation"],
            outputs="suspicious_labels",
            name="find_suspicious_labels",
        ),
        Node(
            func=list_confused_pairs,
            inputs=["classifier_metrics", "dataset_card"],
            outputs="confused_pairs",
            name="list_confused_pairs",
        ),
    ]
