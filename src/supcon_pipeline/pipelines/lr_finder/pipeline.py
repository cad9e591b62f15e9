"""Graph of `lr_finder`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.lr_finder.nodes import (
    draw_curve,
    suggest_learning_rate,
    trace_stage1_loss,
    trace_stage2_loss,
)

STAGES = ("stage1", "stage2")
_DATA = ["prepared_images", "samples", "dataset_card"]


def create_pipeline() -> Pipeline:
    """The range tests of both stages."""
    return sum(map(create_range_test, STAGES), Pipeline([]))


def create_range_test(stage: str) -> Pipeline:
    """The curve, suggestion and picture of the range test of `stage1` or `stage2`."""
    curve, suggestion = f"{stage}_lr_curve", f"{stage}_lr_suggestion"
    parameters = [f"params:{stage}", "params:lr_finder"]
    if stage == "stage1":
        trace = Node(
            func=trace_stage1_loss, inputs=[*_DATA, *parameters], outputs=curve, name="trace_stage1_loss"
        )
    else:
        trace = Node(
            func=trace_stage2_loss,
            inputs=["encoder", *_DATA, *parameters],
            outputs=curve,
            name="trace_stage2_loss",
        )
    return Pipeline(
        [
            trace,
            Node(func=suggest_learning_rate, inputs=curve, outputs=suggestion, name="suggest_learning_rate"),
            Node(
                func=draw_curve, inputs=[curve, suggestion], outputs=f"{stage}_lr_figure", name="draw_curve"
            ),
        ],
        namespace=f"{stage}_lr_finder",
        prefix_datasets_with_namespace=False,
        tags="tuning",
    )
