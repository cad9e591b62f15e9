"""Graph of `evaluation`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.evaluation.nodes import (
    collect_metrics,
    embed_samples,
    predict_samples,
    score_classifier,
    score_features,
    score_pixels,
)


def create_pipeline() -> Pipeline:
    """Encoder, classifier and packed images to embeddings, predictions and metrics."""
    return pipeline(
        [
            node(
                embed_samples,
                ["encoder", "prepared_images", "dataset_card", "params:evaluation"],
                "embeddings",
                name="embed_samples",
            ),
            node(
                score_features,
                ["embeddings", "samples", "params:evaluation"],
                "feature_metrics",
                name="score_features",
            ),
            node(score_pixels, ["prepared_images", "samples"], "pixel_metrics", name="score_pixels"),
            node(
                predict_samples,
                ["classifier", "embeddings", "samples", "dataset_card"],
                "predictions",
                name="predict_samples",
            ),
            node(
                score_classifier,
                ["predictions", "dataset_card"],
                "classifier_metrics",
                name="score_classifier",
            ),
            node(
                collect_metrics,
                [
                    "feature_metrics",
                    "classifier_metrics",
                    "pixel_metrics",
                    "predictions",
                    "embeddings",
                    "classifier",
                    "dataset_card",
                    "run_record",
                ],
                "metrics",
                name="collect_metrics",
            ),
        ],
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
    )
