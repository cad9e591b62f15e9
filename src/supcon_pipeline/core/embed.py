"""Images to embeddings: all of them, in input order."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from supcon_pipeline.core.encoder import Outputs


def iterate_images(
    images: UInt8[np.ndarray, "n h w c"],
    indices: Int[np.ndarray, " m"],
    batch_size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """The images at `indices` in their order, in batches of nearly equal size, none left out."""
    for part in np.array_split(indices, max(1, -(-len(indices) // batch_size))):
        yield torch.from_numpy(np.ascontiguousarray(images[part])).to(device)


@torch.inference_mode()
def embed_images(
    model: nn.Module,
    images: UInt8[np.ndarray, "n h w c"],
    indices: Int[np.ndarray, " m"],
    batch_size: int,
) -> Outputs:
    """What the model gives for the images at `indices`, in that order, on the CPU, float32.

    One forward pass in evaluation mode; the mode of the model is restored afterwards.

    Args:
        model: gives named tensors for a batch of images.
        images: uint8, may be memory-mapped.
        indices: which images.
        batch_size: images per forward pass.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = [model(batch) for batch in iterate_images(images, indices, batch_size, device)]
    model.train(was_training)
    return {name: torch.cat([part[name] for part in parts]).float().cpu() for name in parts[0]}
