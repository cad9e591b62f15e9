"""Graph of `lr_finder`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.lr_finder.nodes import (
    draw_curve,
    suggest_learning_rate,
    trace_stage1_loss,
    trace_stage2_loss,
)

_DATA = ["prepared_images", "samples", "dataset_card"]


def create_pipeline(stage: str) -> Pipeline:
    """The curve, suggestion and picture of the range test of `stage1` or `stage2`."""
    curve, suggestion = f"{stage}_lr_curve", f"{stage}_lr_suggestion"
    parameters = [f"params:{stage}", "params:lr_finder"]
    if stage == "stage1":
        trace = node(trace_stage1_loss, [*_DATA, *parameters], curve, name="trace_stage1_loss")
    else:
        trace = node(trace_stage2_loss, ["encoder", *_DATA, *parameters], curve, name="trace_stage2_loss")
    return pipeline(
        [
            trace,
            node(suggest_learning_rate, curve, suggestion, name="suggest_learning_rate"),
            node(draw_curve, [curve, suggestion], f"{stage}_lr_figure", name="draw_curve"),
        ],
        namespace=f"{stage}_lr_finder",
        prefix_datasets_with_namespace=False,
    )
