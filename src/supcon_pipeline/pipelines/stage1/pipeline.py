"""Graph of `stage1`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.stage1.nodes import draw_training_views, pretrain_encoder


def create_pipeline() -> Pipeline:
    """Packed images to the best checkpoints of encoder and projection head, and a picture of the views."""
    return Pipeline(
        [
            Node(
                func=draw_training_views,
                inputs=["prepared_images", "samples", "dataset_card", "params:stage1"],
                outputs="views_figure",
                name="draw_training_views",
            ),
            Node(
                func=pretrain_encoder,
                inputs=[
                    "prepared_images",
                    "samples",
                    "dataset_card",
                    "run_record",
                    "stage1_tensorboard",
                    "stage1_progress",
                    "params:stage1",
                ],
                outputs=["stage1_checkpoints", "stage1_history"],
                name="pretrain_encoder",
            ),
        ],
        namespace="stage1",
        prefix_datasets_with_namespace=False,
        tags="training",
    )
