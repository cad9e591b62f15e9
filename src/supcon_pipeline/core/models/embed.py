"""Embeddings of images, in input order."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from supcon_pipeline.core.models.encoder import Outputs, restore_model
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.vectors import require_finite


def iterate_images(
    images: UInt8[np.ndarray, "n h w c"],
    indices: Int[np.ndarray, " m"],
    batch_size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """The images at `indices` in their order, in batches of nearly equal size, with none left out."""
    for part in np.array_split(indices, max(1, -(-len(indices) // batch_size))):
        yield torch.from_numpy(np.ascontiguousarray(images[part])).to(device)


@torch.inference_mode()
def embed_images(
    model: nn.Module,
    images: UInt8[np.ndarray, "n h w c"],
    indices: Int[np.ndarray, " m"],
    batch_size: int,
    ranks: Ranks = ALONE,
) -> Outputs:
    """The outputs of a model for the images at `indices`, in that order, on the CPU, float32.

    One forward pass in evaluation mode; the mode of the model is restored afterwards. The device holds the
    outputs of only one batch at a time.

    Args:
        model: returns named tensors for a batch of images.
        images: uint8, may be memory-mapped.
        indices: which images.
        batch_size: images per forward pass.
        ranks: processes that share the images; the first gets all outputs, the others their own.
    """
    # A process without an image would not know the shape of its outputs.
    ranks = ranks if len(indices) >= ranks.count else ALONE
    own = indices[ranks.part(len(indices))]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows: Outputs = {}
    filled = 0
    for batch in iterate_images(images, own, batch_size, device):
        outputs = model(batch)
        if not rows:
            rows = {name: torch.empty(len(own), *part.shape[1:]) for name, part in outputs.items()}
        for name, part in outputs.items():
            rows[name][filled : filled + len(part)] = part
        filled += len(batch)
    model.train(was_training)
    return {name: ranks.bring(part, len(indices)) for name, part in rows.items()}


def embed_by(
    encoder: NamedTensors, images: UInt8[np.ndarray, "n h w c"], batch_size: int, device: torch.device
) -> NamedTensors:
    """The outputs of a saved model for all images, in order; `model_hash` identifies the model.

    Raises:
        InputError: where an output is not finite.
    """
    model = restore_model(encoder).to(device)
    outputs = embed_images(model, images, np.arange(len(images)), batch_size)
    for name, rows in outputs.items():
        require_finite(name, rows.numpy())
    return NamedTensors(outputs, {"model_hash": fingerprint(encoder)})
