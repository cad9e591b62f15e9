"""Graph of `swa`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.swa.nodes import average_checkpoints


def create_pipeline(stage: str, model: str) -> Pipeline:
    """The checkpoints of `stage` to the artifact `model`."""
    inputs = [f"{stage}_checkpoints", "prepared_images", "samples", "dataset_card", "params:swa"]
    return pipeline(
        [node(average_checkpoints, inputs, model, name="average_checkpoints")],
        namespace=f"{stage}_swa",
        prefix_datasets_with_namespace=False,
    )
