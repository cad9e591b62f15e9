"""Graph of `baseline`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.baseline.nodes import train_baseline


def create_pipeline() -> Pipeline:
    """Packed images to the best checkpoints of an encoder trained by cross-entropy."""
    return Pipeline(
        [
            Node(
                func=train_baseline,
                inputs=[
                    "prepared_images",
                    "samples",
                    "dataset_card",
                    "run_record",
                    "baseline_tensorboard",
                    "baseline_progress",
                    "params:stage1",
                    "params:baseline",
                ],
                outputs=["baseline_checkpoints", "baseline_history"],
                name="train_baseline",
            )
        ],
        namespace="baseline",
        prefix_datasets_with_namespace=False,
        tags="training",
    )
