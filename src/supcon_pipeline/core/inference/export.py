"""Export of models to files that work without this project: `torch.export` and ONNX."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from supcon_pipeline.core.inference.any_size import ONE_SIZE, at_another_size, seeing_any_size
from supcon_pipeline.core.inference.comparison import LEEWAYS, Arrays, compare_outputs
from supcon_pipeline.core.messages import InputError, name_some, require_extra
from supcon_pipeline.core.models.encoder import Encoder, Sight, input_size, restore_model
from supcon_pipeline.core.models.weights import shorten_error
from supcon_pipeline.core.named_tensors import NamedTensors

# Difference, relative to the largest value, that rounding makes in float32.
_EXACT = 1e-3
# Images that are compared at another size.
_NUM_LARGER = 8
_INTERPOLATION = "by area interpolation where it shrinks and cubic where it grows (OpenCV)"
# How images are made square, by `data_prep.crop`.
RESIZE_RULES = {
    "pad": f"The longer side is fitted to the image size, {_INTERPOLATION}; the shorter side is filled by "
    "repeating the border.",
    "crop": f"The square in the middle is fitted to the image size, {_INTERPOLATION}.",
    "stretch": f"Both sides are fitted to the image size, {_INTERPOLATION}.",
}


@dataclass(frozen=True)
class ModelProgram:
    """A `torch.export` program and its metadata, in plain JSON values.

    The metadata holds the names of the `outputs` in order, `image_size`, `num_channels`, `class_names` by
    class index, `data_hash`, `encoder_run_id`, `crop`, the `resize` rule, `storage` where the images of the
    run were not stored as squares of pixels, its `precision`, `dynamic_resolution` (whether images may have
    other heights and widths than `image_size`) and, with a classifier, its `temperature`.
    """

    program: Any
    metadata: dict[str, Any]

    def open(self) -> Callable[[UInt8[np.ndarray, "n h w c"]], Arrays]:
        """A function from images to outputs by name, on the CPU."""
        return partial(_run, self.program.module(), self.metadata["outputs"])


class EncoderOutputs(nn.Module):
    """The encoder alone, with named outputs."""

    outputs: tuple[str, ...] = ("embedding",)

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> tuple[Tensor, ...]:
        """The embedding, not scaled to unit length."""
        return (self.encoder(images).float(),)


class ClassifierOutputs(EncoderOutputs):
    """Encoder and classifier, with named outputs.

    Args:
        encoder: maps images to embeddings.
        classifier: maps embeddings to logits.
        temperature: divides the logits before the softmax to calibrate probabilities; above 0.
    """

    outputs = ("embedding", "logits", "probabilities")

    def __init__(self, encoder: nn.Module, classifier: nn.Module, temperature: float = 1.0):
        super().__init__(encoder)
        self.classifier, self.temperature = classifier, temperature

    def forward(self, images: UInt8[Tensor, "batch h w c"]) -> tuple[Tensor, ...]:
        """Embeddings, logits, and the softmax of the logits divided by the temperature."""
        (embedding,) = super().forward(images)
        logits = self.classifier(embedding)
        return embedding, logits, (logits / self.temperature).softmax(dim=1)


def assemble_outputs(
    encoder: NamedTensors,
    classifier: NamedTensors | None = None,
    temperature: float = 1.0,
    dynamic_resolution: bool = False,
) -> EncoderOutputs:
    """The module to export: on the CPU, in evaluation mode, without the projection head.

    Args:
        encoder: its weights.
        classifier: those of the classifier of its embeddings.
        temperature: divides the logits before the softmax.
        dynamic_resolution: whether the module takes images of other sizes than those of training as it takes
            these, where it sees the middle of an image.

    Raises:
        InputError: where it does not.
    """
    network: Encoder = restore_model(encoder).encoder  # type: ignore[assignment]
    network = seeing_any_size(network) if dynamic_resolution else network
    # A program stores weights in the default memory layout only.
    network = network.to(memory_format=torch.contiguous_format)
    if classifier is None:
        return EncoderOutputs(network).eval()
    return ClassifierOutputs(network, restore_model(classifier), temperature).eval()


def describe_export(
    module: EncoderOutputs, encoder: NamedTensors, class_names: Sequence[str]
) -> dict[str, Any]:
    """The metadata of a `ModelProgram`."""
    model = encoder.metadata["model"]
    stored = {"storage": encoder.metadata["storage"]} if "storage" in encoder.metadata else {}
    calibration = {"temperature": module.temperature} if isinstance(module, ClassifierOutputs) else {}
    return {
        "outputs": list(module.outputs),
        "image_size": input_size(model),
        "num_channels": len(model["mean"]),
        "class_names": list(class_names),
        "data_hash": encoder.metadata["data_hash"],
        "encoder_run_id": encoder.metadata["run_id"],
        "crop": encoder.metadata["crop"],
        "resize": RESIZE_RULES[encoder.metadata["crop"]] + _describe_sight(model),
        **stored,
        "precision": "float32",
        "dynamic_resolution": False,
        **calibration,
    }


def _describe_sight(model: Mapping[str, Any]) -> str:
    """What the model itself does with an image of the size at which images are stored, in sentences."""
    words = ""
    if "stored_size" in model:
        side = Sight(model["stored_size"], model["image_size"], model["center_crop"]).side
        words += (
            f" Of this image, the model takes the {side} x {side} pixels in the middle by itself"
            f" and sees them as {model['image_size']} x {model['image_size']}."
        )
    if model.get("mirror_average"):
        words += " The model embeds the mirror image too, and gives the mean of both."
    return words


@contextmanager
def refusing(start: str, remedy: str) -> Iterator[None]:
    """Report in one line that a network cannot be exported; torch's own message is hundreds of lines.

    Args:
        start: what must be, and what is.
        remedy: what to do.

    Raises:
        InputError: instead of any other error.
    """
    try:
        yield
    # The exporter fails with whatever fails first in the code of the network.
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(f"{start} ({type(cause).__name__}: {shorten_error(cause)}); {remedy}") from error


def _refuse_export(what: str) -> AbstractContextManager[None]:
    start = f"stage1.backbone.name must be a network that torch can export {what}, got one it cannot"
    return refusing(start, "use load_encoder, which needs no export")


class _ContiguousAttention(TorchFunctionMode):
    """Attention with its outputs in one memory layout, whichever kernel computes them.

    A network that reshapes them (MaxViT) is traced for the layout of the CPU's own kernel, which that of
    ONNX, and of other machines, does not have.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What `func` gives."""
        output = func(*args, **(kwargs or {}))
        return output.contiguous() if func is functional.scaled_dot_product_attention else output


def _require_fixed_padding(module: nn.Module) -> None:
    """Make sure that no layer pads by the size of its input, which torch does not trace in minutes.

    Raises:
        InputError: where a layer does, as those of timm do whose names end in `Same`.
    """
    kinds = sorted({type(part).__name__ for part in module.modules() if type(part).__name__.endswith("Same")})
    if kinds:
        raise InputError(
            "export.dynamic_resolution must be false for a network that pads by the size of the image, got "
            f"true with {name_some(kinds)}; add --params export.dynamic_resolution=false"
        )


def trace_program(
    module: EncoderOutputs, metadata: Mapping[str, Any], dynamic_resolution: bool = False
) -> ModelProgram:
    """The module as a program of uint8 images `[batch, size, size, channels]`, in batches of any size.

    Args:
        module: what to trace.
        metadata: of the program, from `describe_export`.
        dynamic_resolution: whether height and width may be others, too.

    Raises:
        InputError: where torch cannot trace the network, or the network takes images of one size alone.
    """
    shape = (2, metadata["image_size"], metadata["image_size"], metadata["num_channels"])
    dims: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    refusal = _refuse_export("as a program")
    if dynamic_resolution:
        _require_fixed_padding(module)
        dims |= dict.fromkeys((1, 2), torch.export.Dim.DYNAMIC)
        refusal = refusing(ONE_SIZE, "leave it out")
    example = torch.zeros(shape, dtype=torch.uint8)
    with torch.no_grad(), _ContiguousAttention(), refusal:
        traced = torch.export.export(module, (example,), dynamic_shapes=(dims,))
        program = ModelProgram(traced, {**metadata, "dynamic_resolution": dynamic_resolution})
        if dynamic_resolution:
            images = at_another_size(torch.arange(example.numel()).reshape(shape).byte().numpy())
            compare_outputs("the program", run_module(module, images), program.open()(images), _EXACT)
    return program


def convert_to_onnx(program: ModelProgram) -> Any:
    """The program as an ONNX `ModelProto`, with each entry of the metadata as JSON.

    Raises:
        InputError: where the extra for it is not installed, or torch cannot convert the network.
    """
    require_extra("onnx", "onnx", "onnxscript")
    outputs = program.metadata["outputs"]
    with _refuse_export("to ONNX"):
        converted = torch.onnx.export(
            program.program, dynamo=True, input_names=["images"], output_names=outputs, verbose=False
        )
    return with_metadata(converted.model_proto, program.metadata)  # type: ignore[union-attr]


def with_metadata(model: Any, metadata: Mapping[str, Any]) -> Any:
    """The same ONNX model, with this metadata in place of what it had, each entry as JSON."""
    import onnx

    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    onnx.checker.check_model(model)
    return model


def read_onnx_metadata(model: Any) -> dict[str, Any]:
    """The metadata of the `ModelProgram` that an ONNX model was converted from."""
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


def open_onnx(model: Any) -> Callable[[UInt8[np.ndarray, "n h w c"]], Arrays]:
    """A function from images to outputs by name, run by onnxruntime on the CPU."""
    require_extra("onnx", "onnxruntime")
    from onnxruntime import InferenceSession

    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: UInt8[np.ndarray, "n h w c"]) -> Arrays:
        return dict(zip(names, session.run(None, {"images": images}), strict=True))

    return run


def run_module(module: EncoderOutputs, images: UInt8[np.ndarray, "n h w c"]) -> Arrays:
    """The outputs of the original module by name."""
    return _run(module, module.outputs, images)


@torch.inference_mode()
def _run(module: nn.Module, names: Sequence[str], images: UInt8[np.ndarray, "n h w c"]) -> Arrays:
    device = next(module.parameters()).device
    values = module(torch.from_numpy(np.ascontiguousarray(images)).to(device))
    return {name: value.cpu().numpy() for name, value in zip(names, values, strict=True)}


def compare_exports(
    name: str,
    module: EncoderOutputs,
    program: ModelProgram,
    model: Any,
    images: UInt8[np.ndarray, "n size size c"],
    tolerance: float,
) -> dict[str, dict[str, float]]:
    """The largest absolute differences between a module and the files that it was exported to.

    Where these take images of other sizes, a few are compared at another size, too.

    Args:
        name: with which the names of the files begin.
        module: the original.
        program: the file of `trace_program`, as read back.
        model: that of `convert_to_onnx`, likewise.
        images: on which they are compared.
        tolerance: as for `compare_outputs`.

    Returns:
        By file and output.

    Raises:
        InputError: as for `compare_outputs`.
    """
    metadata = read_onnx_metadata(model)
    # Files of earlier versions do not say it.
    leeway = LEEWAYS[metadata.get("precision", "float32")]
    files = {f"{name}_program.pt2": (program.open(), 1.0), f"{name}_onnx.onnx": (open_onnx(model), leeway)}
    sizes = {"": images}
    if metadata.get("dynamic_resolution"):
        larger = at_another_size(images[:_NUM_LARGER])
        sizes[f" at {larger.shape[1]} x {larger.shape[2]}"] = larger
    return {
        f"{file}{size}": compare_outputs(f"{file}{size}", expected, run(shown), tolerance, times)
        for size, shown in sizes.items()
        for expected in [run_module(module, shown)]
        for file, (run, times) in files.items()
    }
