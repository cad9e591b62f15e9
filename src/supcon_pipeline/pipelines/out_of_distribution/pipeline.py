"""Graph of `out_of_distribution`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.out_of_distribution.nodes import (
    embed_outside_images,
    measure_detection,
    score_outside_images,
)


def create_pipeline() -> Pipeline:
    """Images of another kind to their distances from the training images, and what these tell."""
    return Pipeline(
        [
            Node(
                func=embed_outside_images,
                inputs=["outside_images", "encoder", "params:out_of_distribution"],
                outputs=["outside_embeddings", "outside_samples", "unreadable_outside_images"],
                name="embed_outside_images",
            ),
            Node(
                func=score_outside_images,
                inputs=[
                    "outside_embeddings",
                    "outside_samples",
                    "embeddings",
                    "samples",
                    "params:out_of_distribution",
                ],
                outputs="outside_scores",
                name="score_outside_images",
            ),
            Node(
                func=measure_detection,
                inputs=["outside_scores", "outside_samples", "embeddings"],
                outputs="out_of_distribution_metrics",
                name="measure_detection",
            ),
        ],
        namespace="out_of_distribution",
        prefix_datasets_with_namespace=False,
        tags="inference",
    )
