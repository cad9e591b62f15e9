"""Graph of `swa`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.swa.nodes import average_checkpoints

# The artifact that holds the average of each stage.
MODELS = {"stage1": "encoder", "stage2": "classifier", "baseline": "baseline_model"}


def create_pipeline() -> Pipeline:
    """The averages of all stages."""
    return sum(map(create_average, MODELS), Pipeline([]))


def create_average(stage: str) -> Pipeline:
    """The checkpoints of a stage to its model."""
    inputs = [f"{stage}_checkpoints", "prepared_images", "samples", "dataset_card", "params:swa"]
    return Pipeline(
        [Node(func=average_checkpoints, inputs=inputs, outputs=MODELS[stage], name="average_checkpoints")],
        namespace=f"{stage}_swa",
        prefix_datasets_with_namespace=False,
        tags="training",
    )
