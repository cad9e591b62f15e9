"""Graph of `stage2`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.stage2.nodes import train_linear_classifier


def create_pipeline() -> Pipeline:
    """The frozen encoder and packed images to the best checkpoints of a linear classifier."""
    return Pipeline(
        [
            Node(
                func=train_linear_classifier,
                inputs=[
                    "encoder",
                    "prepared_images",
                    "samples",
                    "dataset_card",
                    "run_record",
                    "stage2_tensorboard",
                    "stage2_progress",
                    "params:stage2",
                ],
                outputs=["stage2_checkpoints", "stage2_history"],
                name="train_linear_classifier",
            )
        ],
        namespace="stage2",
        prefix_datasets_with_namespace=False,
        tags="training",
    )
