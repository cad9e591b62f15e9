"""Nodes of `export`."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import rows_of, spread_evenly
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint, require_encoder
from supcon_pipeline.core.parameters.inference import ExportParameters

# A `ModelProgram` and `NativeWeights`, whose modules load torch, and a `ModelProto` of onnx.
Program = Any
NativeWeights = Any
OnnxModel = Any
# The nodes that need no classifier.
OF_ENCODER = ("export.export_encoder", "export.convert_encoder", "export.export_backbone")


def export_encoder(encoder: NamedTensors, dataset_card: dict[str, Any], params: ExportParameters) -> Program:
    """The encoder with its normalisation as a program."""
    from supcon_pipeline.core.inference.export import assemble_outputs, describe_export, trace_program

    module = assemble_outputs(encoder, dynamic_resolution=params.dynamic_resolution)
    metadata = describe_export(module, encoder, dataset_card["class_names"])
    return trace_program(module, metadata, params.dynamic_resolution)


def export_classifier(
    encoder: NamedTensors,
    classifier: NamedTensors,
    classifier_metrics: dict[str, Any],
    dataset_card: dict[str, Any],
    params: ExportParameters,
) -> Program:
    """Encoder and classifier as one program, with calibrated probabilities."""
    from supcon_pipeline.core.inference.export import assemble_outputs, describe_export, trace_program

    if not classifier.tensors:
        raise InputError(
            "classifier must have weights, got none, as train lacks the classes held out; export the "
            f"encoder alone: kedro run --pipelines export --nodes {','.join(OF_ENCODER)}"
        )
    require_encoder(classifier, fingerprint(encoder))
    temperature = classifier_metrics["calibrated"]["temperature"]
    module = assemble_outputs(encoder, classifier, temperature, params.dynamic_resolution)
    metadata = describe_export(module, encoder, dataset_card["class_names"])
    return trace_program(module, metadata, params.dynamic_resolution)


def convert_program(
    program: Program, prepared_images: StoredImages, samples: pd.DataFrame, params: ExportParameters
) -> OnnxModel:
    """A program as ONNX, in the precision that is asked for."""
    from supcon_pipeline.core.data.images import LabelledImages
    from supcon_pipeline.core.inference.export import convert_to_onnx
    from supcon_pipeline.core.inference.onnx_precision import reduce_precision

    model = convert_to_onnx(program)
    if params.onnx_precision == "float32":
        return model
    data = LabelledImages.of(prepared_images, samples)
    return reduce_precision(model, params.onnx_precision, data, params.max_knn_loss)


def export_backbone(
    encoder: NamedTensors, dataset_card: dict[str, Any], run_record: dict[str, Any]
) -> NativeWeights:
    """The backbone in the form that its library reads, with a card."""
    from supcon_pipeline.core.inference.native_weights import native_weights
    from supcon_pipeline.core.pages.backbone_card import render_backbone_card

    weights = native_weights(encoder)
    return replace(weights, card=render_backbone_card(weights, dataset_card, run_record))


def check_export(
    encoder: NamedTensors,
    classifier: NamedTensors,
    encoder_program: Program,
    encoder_onnx: OnnxModel,
    classifier_program: Program,
    classifier_onnx: OnnxModel,
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    params: ExportParameters,
) -> dict[str, Any]:
    """Largest differences between what was exported, as read back, and the original, on test images."""
    from supcon_pipeline.core.inference import export

    test = spread_evenly(rows_of(samples, "test"), params.num_checked)
    images = np.ascontiguousarray(prepared_images[test])
    said, metadata = classifier_program.metadata, export.read_onnx_metadata(encoder_onnx)
    # Files of earlier versions do not say this, and not the last two.
    is_dynamic = said.get("dynamic_resolution", False)
    alone = export.assemble_outputs(encoder, dynamic_resolution=is_dynamic)
    both = export.assemble_outputs(encoder, classifier, said["temperature"], is_dynamic)
    compare = partial(export.compare_exports, images=images, tolerance=params.tolerance)
    return {
        "num_images": len(images),
        "tolerance": params.tolerance,
        "differences": {
            **compare("encoder", alone, encoder_program, encoder_onnx),
            **compare("classifier", both, classifier_program, classifier_onnx),
        },
        "onnx_precision": metadata.get("precision", "float32"),
        "knn": metadata.get("knn"),
    }


def write_model_card(
    classifier_program: Program,
    metrics: dict[str, Any],
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    export_check: dict[str, Any],
) -> str:
    """What the exported models are, how good they are and how to use them."""
    from supcon_pipeline.core.pages.model_card import render_model_card

    return render_model_card(classifier_program.metadata, metrics, dataset_card, run_record, export_check)
