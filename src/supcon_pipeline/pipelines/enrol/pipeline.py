"""Graph of `enrol`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.enrol.nodes import (
    embed_enrolled_images,
    extend_index,
    read_enrolled_images,
)


def create_pipeline() -> Pipeline:
    """Images of classes that came after training to an index that has them, too."""
    return Pipeline(
        [
            Node(
                func=read_enrolled_images,
                inputs=["enrol_images", "encoder", "params:enrol"],
                outputs=["enrolled_images", "enrolled_samples", "unreadable_enrolled_images"],
                name="read_enrolled_images",
            ),
            Node(
                func=embed_enrolled_images,
                inputs=["encoder", "enrolled_images", "params:enrol"],
                outputs="enrolled_embeddings",
                name="embed_enrolled_images",
            ),
            Node(
                func=extend_index,
                inputs=[
                    "enrolled_embeddings",
                    "enrolled_samples",
                    "embeddings",
                    "samples",
                    "dataset_card",
                    "params:index",
                ],
                outputs=["gallery_index", "gallery_rows", "gallery_index_card"],
                name="extend_index",
            ),
        ],
        namespace="enrol",
        prefix_datasets_with_namespace=False,
        tags="enrol",
    )
