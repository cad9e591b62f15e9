"""Graph of `export`."""

from kedro.pipeline import Node, Pipeline

from supcon_pipeline.pipelines.export.nodes import (
    check_export,
    convert_program,
    export_backbone,
    export_classifier,
    export_encoder,
    write_model_card,
)


def create_pipeline() -> Pipeline:
    """Encoder and classifier as ONNX and `torch.export` programs, with check and card; the backbone alone."""
    exported = ["encoder_program", "encoder_onnx", "classifier_program", "classifier_onnx"]
    return Pipeline(
        [
            *_convert(),
            Node(
                func=export_backbone,
                inputs=["encoder", "dataset_card", "run_record"],
                outputs="backbone",
                name="export_backbone",
            ),
            Node(
                func=check_export,
                inputs=["encoder", "classifier", *exported, "prepared_images", "samples", "params:export"],
                outputs="export_check",
                name="check_export",
            ),
            Node(
                func=write_model_card,
                inputs=["classifier_program", "metrics", "dataset_card", "run_record", "export_check"],
                outputs="model_card",
                name="write_model_card",
            ),
        ],
        namespace="export",
        prefix_datasets_with_namespace=False,
        tags="export",
    )


def _convert() -> list[Node]:
    """Each model as a program, and that as ONNX."""
    images = ["prepared_images", "samples"]
    return [
        Node(
            func=export_encoder,
            inputs=["encoder", "dataset_card", "params:export"],
            outputs="encoder_program",
            name="export_encoder",
        ),
        Node(
            func=convert_program,
            inputs=["encoder_program", *images, "params:export"],
            outputs="encoder_onnx",
            name="convert_encoder",
        ),
        Node(
            func=export_classifier,
            inputs=["encoder", "classifier", "classifier_metrics", "dataset_card", "params:export"],
            outputs="classifier_program",
            name="export_classifier",
        ),
        Node(
            func=convert_program,
            inputs=["classifier_program", *images, "params:export"],
            outputs="classifier_onnx",
            name="convert_classifier",
        ),
    ]
