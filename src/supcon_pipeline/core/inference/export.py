"""Models as files that need nothing of this project: a `torch.export` program and ONNX."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import restore_model
from supcon_pipeline.core.named_tensors import NamedTensors

Arrays = dict[str, np.ndarray]
_INTERPOLATION = "by area interpolation where it shrinks and cubic where it grows (OpenCV)"
# How an image becomes a square, by `data_prep.crop`.
RESIZE_RULES = {
    "pad": f"The longer side is fitted to the image size, {_INTERPOLATION}; the shorter side is filled by "
    "repeating the border.",
    "crop": f"The square in the middle is fitted to the image size, {_INTERPOLATION}.",
    "stretch": f"Both sides are fitted to the image size, {_INTERPOLATION}.",
}


@dataclass(frozen=True)
class ModelProgram:
    """A `torch.export` program, and metadata that JSON can hold.

    The metadata has the `outputs` in their order, `image_size`, `num_channels`, `class_names` (the labels,
    by index), `data_hash`, `encoder_run_id`, `crop` and the `resize` rule, and with a classifier its
    `temperature`.
    """

    program: Any
    metadata: dict[str, Any]

    def open(self) -> Callable[[UInt8[np.ndarray, "n h w c"]], Arrays]:
        """A function from images to the outputs by their names, on the CPU."""
        return partial(_run, self.program.module(), self.metadata["outputs"])


class EncoderOutputs(nn.Module):
    """The encoder alone, with named outputs."""

    outputs: tuple[str, ...] = ("embedding",)

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> tuple[Tensor, ...]:
        """The embedding, as long as the network gives it."""
        return (self.encoder(images).float(),)


class ClassifierOutputs(EncoderOutputs):
    """Encoder and classifier, with named outputs.

    Args:
        encoder: images to embeddings.
        classifier: embeddings to logits.
        temperature: above 0, that the logits are divided by, so that probabilities are calibrated.
    """

    outputs = ("embedding", "logits", "probabilities")

    def __init__(self, encoder: nn.Module, classifier: nn.Module, temperature: float = 1.0):
        super().__init__(encoder)
        self.classifier, self.temperature = classifier, temperature

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> tuple[Tensor, ...]:
        """Embedding, logits, and the softmax of the logits at the temperature."""
        (embedding,) = super().forward(images)
        logits = self.classifier(embedding)
        return embedding, logits, (logits / self.temperature).softmax(dim=1)


def assemble_outputs(
    encoder: NamedTensors, classifier: NamedTensors | None = None, temperature: float = 1.0
) -> EncoderOutputs:
    """The module to export, on the CPU, in evaluation mode, without the projection head."""
    network: nn.Module = restore_model(encoder).encoder  # type: ignore[assignment]
    # A program stores weights in the plain layout only.
    network = network.to(memory_format=torch.contiguous_format)
    if classifier is None:
        return EncoderOutputs(network).eval()
    return ClassifierOutputs(network, restore_model(classifier), temperature).eval()


def describe_export(
    module: EncoderOutputs, encoder: NamedTensors, class_names: Sequence[str]
) -> dict[str, Any]:
    """The metadata of a `ModelProgram`."""
    model = encoder.metadata["model"]
    calibration = {"temperature": module.temperature} if isinstance(module, ClassifierOutputs) else {}
    return {
        "outputs": list(module.outputs),
        "image_size": model["image_size"],
        "num_channels": len(model["mean"]),
        "class_names": list(class_names),
        "data_hash": encoder.metadata["data_hash"],
        "encoder_run_id": encoder.metadata["run_id"],
        "crop": encoder.metadata["crop"],
        "resize": RESIZE_RULES[encoder.metadata["crop"]],
        **calibration,
    }


def trace_program(module: EncoderOutputs, metadata: Mapping[str, Any]) -> ModelProgram:
    """The module as a program of uint8 images `[batch, size, size, channels]`, any batch from 1 on."""
    shape = (2, metadata["image_size"], metadata["image_size"], metadata["num_channels"])
    batch = torch.export.Dim("batch", min=1)
    example = (torch.zeros(shape, dtype=torch.uint8),)
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=({0: batch},))
    return ModelProgram(program, dict(metadata))


def convert_to_onnx(program: ModelProgram) -> Any:
    """The program as an ONNX `ModelProto` that carries the metadata as JSON under their names."""
    import onnx

    outputs = program.metadata["outputs"]
    converted = torch.onnx.export(
        program.program, dynamo=True, input_names=["images"], output_names=outputs, verbose=False
    )
    model = converted.model_proto  # type: ignore[union-attr]
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in program.metadata.items()})
    onnx.checker.check_model(model)
    return model


def read_onnx_metadata(model: Any) -> dict[str, Any]:
    """The metadata of a `ModelProgram` from the ONNX model that was made of it."""
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


def open_onnx(model: Any) -> Callable[[UInt8[np.ndarray, "n h w c"]], Arrays]:
    """A function from images to the outputs by their names, by onnxruntime on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: UInt8[np.ndarray, "n h w c"]) -> Arrays:
        return dict(zip(names, session.run(None, {"images": images}), strict=True))

    return run


def run_module(module: EncoderOutputs, images: UInt8[np.ndarray, "n h w c"]) -> Arrays:
    """What the original gives for images, by the name of the output."""
    return _run(module, module.outputs, images)


@torch.inference_mode()
def _run(module: nn.Module, names: Sequence[str], images: UInt8[np.ndarray, "n h w c"]) -> Arrays:
    device = next(module.parameters()).device
    values = module(torch.from_numpy(np.ascontiguousarray(images)).to(device))
    return {name: value.cpu().numpy() for name, value in zip(names, values, strict=True)}


def compare_outputs(name: str, expected: Arrays, given: Arrays, tolerance: float) -> dict[str, float]:
    """The largest absolute difference of each output.

    Args:
        name: of the exported model, for the error.
        expected: of the original.
        given: of the exported model.
        tolerance: what is borne, as a share of the largest absolute value of the output.

    Raises:
        InputError: where an output is not there, or differs by more.
    """
    if expected.keys() != given.keys():
        raise InputError(f"outputs of {name} must be {', '.join(expected)}, got {', '.join(given)}")
    differences = {output: _difference(expected[output], given[output]) for output in expected}
    for output, difference in differences.items():
        borne = tolerance * float(np.abs(expected[output]).max())
        # Written so that a difference that is no number is refused.
        if not difference <= borne:
            raise InputError(
                f"{output} of {name} must differ from the original by at most {borne:.3g}, "
                f"got {difference:.3g}; raise export.tolerance if that is good enough"
            )
    return differences


def _difference(expected: Float[np.ndarray, "n dim"], given: Float[np.ndarray, "n dim"]) -> float:
    if expected.shape != given.shape:
        return float("inf")
    return float(np.abs(expected - given).max())
