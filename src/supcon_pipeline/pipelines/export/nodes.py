"""Nodes of `export`."""

from dataclasses import replace
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


def export_encoder(encoder: NamedTensors, dataset_card: dict[str, Any]) -> Program:
    """The encoder with its normalisation as a program."""
    from supcon_pipeline.core.inference.export import assemble_outputs, describe_export, trace_program

    module = assemble_outputs(encoder)
    return trace_program(module, describe_export(module, encoder, dataset_card["class_names"]))


def export_classifier(
    encoder: NamedTensors,
    classifier: NamedTensors,
    classifier_metrics: dict[str, Any],
    dataset_card: dict[str, Any],
) -> Program:
    """Encoder and classifier as one program, with calibrated probabilities."""
    from supcon_pipeline.core.inference.export import assemble_outputs, describe_export, trace_program

    if not classifier.tensors:
        raise InputError(
            "classifier must have weights, got none, as train lacks the classes held out; export the "
            "encoder alone: kedro run --pipelines export "
            "--nodes export.export_encoder,export.convert_encoder,export.export_backbone"
        )
    require_encoder(classifier, fingerprint(encoder))
    module = assemble_outputs(encoder, classifier, classifier_metrics["calibrated"]["temperature"])
    return trace_program(module, describe_export(module, encoder, dataset_card["class_names"]))


def convert_program(program: Program) -> OnnxModel:
    """A program as ONNX."""
    from supcon_pipeline.core.inference.export import convert_to_onnx

    return convert_to_onnx(program)


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
    alone = export.run_module(export.assemble_outputs(encoder), images)
    temperature = classifier_program.metadata["temperature"]
    both = export.run_module(export.assemble_outputs(encoder, classifier, temperature), images)
    exported = {
        "encoder_program.pt2": (alone, encoder_program.open()(images)),
        "encoder_onnx.onnx": (alone, export.open_onnx(encoder_onnx)(images)),
        "classifier_program.pt2": (both, classifier_program.open()(images)),
        "classifier_onnx.onnx": (both, export.open_onnx(classifier_onnx)(images)),
    }
    differences = {
        name: export.compare_outputs(name, *pair, params.tolerance) for name, pair in exported.items()
    }
    return {"num_images": len(images), "tolerance": params.tolerance, "differences": differences}


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
