"""Nodes of `export`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.parameters.inference import ExportParameters


def export_encoder(encoder: Any, dataset_card: dict[str, Any]) -> Any:
    """The encoder with its normalisation as a program."""
    from supcon_pipeline.core.inference.export import assemble_outputs, describe_export, trace_program

    module = assemble_outputs(encoder)
    return trace_program(module, describe_export(module, encoder, dataset_card["class_names"]))


def export_classifier(
    encoder: Any, classifier: Any, classifier_metrics: dict[str, Any], dataset_card: dict[str, Any]
) -> Any:
    """Encoder and classifier as one program, with calibrated probabilities."""
    from supcon_pipeline.core.inference.export import assemble_outputs, describe_export, trace_program
    from supcon_pipeline.core.named_tensors import fingerprint, require_origin

    remedy = "run stage2 and its swa on this encoder"
    require_origin("classifier", classifier, "encoder_hash", fingerprint(encoder), remedy)
    module = assemble_outputs(encoder, classifier, classifier_metrics["calibrated"]["temperature"])
    return trace_program(module, describe_export(module, encoder, dataset_card["class_names"]))


def convert_program(program: Any) -> Any:
    """A program as ONNX."""
    from supcon_pipeline.core.inference.export import convert_to_onnx

    return convert_to_onnx(program)


def check_export(
    encoder: Any,
    classifier: Any,
    encoder_program: Any,
    encoder_onnx: Any,
    classifier_program: Any,
    classifier_onnx: Any,
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    params: ExportParameters,
) -> dict[str, Any]:
    """Largest differences between what was exported, as read back, and the original, on test images."""
    from supcon_pipeline.core.data.images import rows_of, spread_evenly
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
    classifier_program: Any,
    metrics: dict[str, Any],
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    export_check: dict[str, Any],
) -> str:
    """What the exported models are, how good they are and how to use them."""
    from supcon_pipeline.core.pages.model_card import render_model_card

    return render_model_card(classifier_program.metadata, metrics, dataset_card, run_record, export_check)
