"""Graph of `swa`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.swa.nodes import average_checkpoints


def create_pipeline(stage: str, model: str) -> Pipeline:
    """The checkpoints of `stage` to the artifact `model`."""
    template = pipeline(
        [
            node(
                average_checkpoints,
                ["checkpoints", "prepared_images", "samples", "dataset_card", "params:swa"],
                "model",
                name="average_checkpoints",
            )
        ]
    )
    return pipeline(
        template,
        inputs={
            "checkpoints": f"{stage}_checkpoints",
            "prepared_images": "prepared_images",
            "samples": "samples",
            "dataset_card": "dataset_card",
        },
        outputs={"model": model},
        parameters={"params:swa": "params:swa"},
        namespace=f"{stage}_swa",
    )
