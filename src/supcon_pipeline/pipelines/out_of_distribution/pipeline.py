"""Graph of `out_of_distribution`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.out_of_distribution.nodes import (
    embed_outside_images,
    measure_detection,
    score_outside_images,
)


def create_pipeline() -> Pipeline:
    """Images of another kind to their distances from the training images, and what these tell."""
    return pipeline(
        [
            node(
                embed_outside_images,
                ["outside_images", "encoder", "params:out_of_distribution"],
                ["outside_embeddings", "outside_samples", "unreadable_outside_images"],
                name="embed_outside_images",
            ),
            node(
                score_outside_images,
                [
                    "outside_embeddings",
                    "outside_samples",
                    "embeddings",
                    "samples",
                    "params:out_of_distribution",
                ],
                "outside_scores",
                name="score_outside_images",
            ),
            node(
                measure_detection,
                ["outside_scores", "outside_samples", "embeddings"],
                "out_of_distribution_metrics",
                name="measure_detection",
            ),
        ],
        namespace="out_of_distribution",
        prefix_datasets_with_namespace=False,
    )
