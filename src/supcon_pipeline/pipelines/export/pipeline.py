"""Graph of `export`."""

from kedro.pipeline import Pipeline, node, pipeline

from supcon_pipeline.pipelines.export.nodes import (
    check_export,
    convert_program,
    export_classifier,
    export_encoder,
    write_model_card,
)


def create_pipeline() -> Pipeline:
    """Encoder and classifier to ONNX and `torch.export` programs, their check and a model card."""
    exported = ["encoder_program", "encoder_onnx", "classifier_program", "classifier_onnx"]
    return pipeline(
        [
            node(export_encoder, ["encoder", "dataset_card"], "encoder_program", name="export_encoder"),
            node(convert_program, "encoder_program", "encoder_onnx", name="convert_encoder"),
            node(
                export_classifier,
                ["encoder", "classifier", "classifier_metrics", "dataset_card"],
                "classifier_program",
                name="export_classifier",
            ),
            node(convert_program, "classifier_program", "classifier_onnx", name="convert_classifier"),
            node(
                check_export,
                ["encoder", "classifier", *exported, "prepared_images", "samples", "params:export"],
                "export_check",
                name="check_export",
            ),
            node(
                write_model_card,
                ["classifier_program", "metrics", "dataset_card", "run_record", "export_check"],
                "model_card",
                name="write_model_card",
            ),
        ],
        namespace="export",
        prefix_datasets_with_namespace=False,
    )
