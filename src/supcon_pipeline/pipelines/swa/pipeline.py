"""Graph of `swa`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.swa.nodes import average_checkpoints


def create_pipeline(stage: str, model: str) -> Pipeline:
    """The checkpoints of `stage` to the artifact `model`."""
    inputs = [f"{stage}_checkpoints", "prepared_images", "samples", "dataset_card", "params:swa"]
    return Pipeline(
        [Node(func=average_checkpoints, inputs=inputs, outputs=model, name="average_checkpoints")],
        namespace=f"{stage}_swa",
        prefix_datasets_with_namespace=False,
        tags="training",
    )
