"""Graph of `stage1`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.stage1.nodes import pretrain_encoder


def create_pipeline() -> Pipeline:
    """Packed images to the best checkpoints of encoder and projection head."""
    return pipeline(
        [
            node(
                pretrain_encoder,
                [
                    "prepared_images",
                    "samples",
                    "dataset_card",
                    "run_record",
                    "stage1_tensorboard",
                    "stage1_progress",
                    "params:stage1",
                ],
                ["stage1_checkpoints", "stage1_history"],
                name="pretrain_encoder",
            )
        ],
        namespace="stage1",
        prefix_datasets_with_namespace=False,
    )
