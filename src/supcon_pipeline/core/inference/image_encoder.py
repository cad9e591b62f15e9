"""A trained encoder as an object that takes images."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.inference.comparison import Arrays
from supcon_pipeline.core.inference.export import (
    ModelProgram,
    assemble_outputs,
    describe_export,
    open_onnx,
    read_onnx_metadata,
    run_module,
)
from supcon_pipeline.core.inference.new_images import list_images, pack_new_image
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import ENCODER_KINDS
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.vectors import require_finite, unit_rows

# What the metadata of an exported model says of its inputs and outputs.
_ENTRIES = ("outputs", "image_size", "num_channels", "crop", "class_names")


class Prediction(NamedTuple):
    """The class that the classifier predicts, with its probability from 0 to 1."""

    class_name: str
    probability: float


class Verification(NamedTuple):
    """Whether two images are of one class, and the cosine similarity of their embeddings."""

    is_match: bool
    similarity: float


class ImageEncoder:
    """Images in, embeddings and classes out.

    Takes one image or a sequence of images of any size: paths, bytes of image files, PIL images, or uint8
    arrays `[height, width]` or `[height, width, channels]`. They are resized like the training images.

    Args:
        run: computes outputs by name from packed images.
        metadata: that of a `core.inference.export.ModelProgram`.
        batch_size: images per forward pass.
        match_threshold: the cosine similarity from which two images are of one class, where it is known.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Arrays],
        metadata: Mapping[str, Any],
        batch_size: int = 256,
        match_threshold: float | None = None,
    ):
        self._run, self.metadata, self.batch_size = run, dict(metadata), batch_size
        self.match_threshold = match_threshold

    @property
    def class_names(self) -> list[str]:
        """The name of each class, by its index."""
        return list(self.metadata["class_names"])

    def embed(self, images: Any) -> Float[np.ndarray, "n dim"]:
        """Embeddings of unit length, float32, in the order of the images; dot products are cosines.

        Raises:
            InputError: where something is not an image, there are no images, or an output is not finite.
            OSError: where a file cannot be read.
        """
        return unit_rows(self._outputs(images, "embedding"))

    def classify(self, images: Any) -> list[Prediction]:
        """The most probable class of each image.

        Raises:
            InputError: as for `embed`, and where the encoder has no classifier.
            OSError: where a file cannot be read.
        """
        probabilities = self._outputs(images, "probabilities")
        names, likeliest = self.class_names, probabilities.argmax(axis=1)
        return [Prediction(names[c], float(row[c])) for c, row in zip(likeliest, probabilities, strict=True)]

    def verify(self, first: Any, second: Any) -> list[Verification]:
        """Whether each image of the first is of the class of that at the same place in the second.

        The threshold is that which evaluation chose on validation images, for the rate of false matches in
        `evaluation.verification.false_match_rate`.

        Raises:
            InputError: as for `embed`, where the numbers of images differ, and where no threshold was chosen.
            OSError: where a file cannot be read.
        """
        if self.match_threshold is None:
            raise InputError(
                "match_threshold must be known, got none, as the encoder comes from no evaluated run; "
                "load one with load_encoder(<project>), after the pipeline evaluation has run"
            )
        sides = [list_images(images) for images in (first, second)]
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"first and second must be as many images, got {len(sides[0])} and {len(sides[1])}"
            )
        similarities = (self.embed(sides[0]) * self.embed(sides[1])).sum(axis=1)
        return [Verification(bool(value >= self.match_threshold), float(value)) for value in similarities]

    def _outputs(self, images: Any, name: str) -> np.ndarray:
        if name not in self.metadata["outputs"]:
            outputs = ", ".join(self.metadata["outputs"])
            raise InputError(
                f"outputs of the model must include {name}, got {outputs}; load one with a classifier"
            )
        items = list_images(images)
        if not items:
            raise InputError("images must be at least one, got none")
        packing = Packing(*(self.metadata[key] for key in ("image_size", "num_channels", "crop")))
        parts = []
        for start in range(0, len(items), self.batch_size):
            packed = [pack_new_image(image, packing) for image in items[start : start + self.batch_size]]
            parts.append(self._run(np.stack(packed))[name])
        require_finite(name, rows := np.concatenate(parts))
        return rows


def encoder_of_states(
    encoder: NamedTensors,
    classifier: NamedTensors | None = None,
    class_names: Sequence[str] = (),
    temperature: float = 1.0,
    name: str = "encoder",
    match_threshold: float | None = None,
) -> ImageEncoder:
    """From the weights of a run, on a GPU if there is one; the temperature calibrates the classifier.

    Args:
        encoder: the weights of an encoder.
        classifier: those of the classifier of its embeddings.
        class_names: the name of each class, by its index.
        temperature: divides the logits before the softmax.
        name: what the encoder is called in messages.
        match_threshold: as for `ImageEncoder`.

    Raises:
        InputError: where the weights are not those of an encoder.
    """
    kind = encoder.metadata.get("model", {}).get("kind")
    if kind not in ENCODER_KINDS:
        raise InputError(
            f"{name} must hold the weights of an encoder, got those of {kind or 'no model'}; "
            "choose encoder.safetensors or baseline_model.safetensors"
        )
    module = assemble_outputs(encoder, classifier, temperature).to(pick_device())
    metadata = describe_export(module, encoder, class_names)
    return ImageEncoder(partial(run_module, module), metadata, match_threshold=match_threshold)


def encoder_of_onnx(model: Any, name: str = "model") -> ImageEncoder:
    """From an exported ONNX model, on the CPU; `name` is what it is called in messages.

    Raises:
        InputError: where it was not exported by this project.
    """
    metadata = read_onnx_metadata(model)
    _require_entries(metadata, name)
    return ImageEncoder(open_onnx(model), metadata)


def encoder_of_program(program: ModelProgram, name: str = "model") -> ImageEncoder:
    """From an exported program, on the CPU; `name` is what it is called in messages.

    Raises:
        InputError: where it was not exported by this project.
    """
    _require_entries(program.metadata, name)
    return ImageEncoder(program.open(), program.metadata)


def _require_entries(metadata: Mapping[str, Any], name: str) -> None:
    """Refuse a model whose metadata does not say how to prepare images for it."""
    absent = [entry for entry in _ENTRIES if entry not in metadata]
    if absent:
        raise InputError(
            f"metadata of {name} must have {', '.join(_ENTRIES)}, got no {', '.join(absent)}; "
            "choose a file that the pipeline export has made"
        )
