"""Graph of `published`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.published.nodes import embed_start


def create_pipeline() -> Pipeline:
    """Packed images to the embeddings of the backbone before any training, with a classifier's logits."""
    return Pipeline(
        [
            Node(
                func=embed_start,
                inputs=[
                    "prepared_images",
                    "samples",
                    "dataset_card",
                    "run_record",
                    "published_tensorboard",
                    "published_progress",
                    "params:stage1",
                    "params:stage2",
                    "params:swa",
                ],
                outputs="published_embeddings",
                name="embed_start",
            )
        ],
        namespace="published",
        prefix_datasets_with_namespace=False,
        tags="training",
    )
