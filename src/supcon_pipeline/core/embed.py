"""Images to embeddings: all of them, in input order."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from supcon_pipeline.core.encoder import Features


def iterate_images(
    images: UInt8[np.ndarray, "n h w c"],
    indices: Int[np.ndarray, " m"],
    batch_size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """The images at `indices` in their order, batch by batch, none left out."""
    for start in range(0, len(indices), batch_size):
        batch = np.ascontiguousarray(images[indices[start : start + batch_size]])
        yield torch.from_numpy(batch).to(device)


@torch.inference_mode()
def embed_images(
    model: nn.Module,
    images: UInt8[np.ndarray, "n h w c"],
    indices: Int[np.ndarray, " m"],
    batch_size: int,
) -> Features:
    """Embeddings and projections of the images at `indices`, in that order, on the CPU, float32.

    One forward pass in evaluation mode; the mode of the model is restored afterwards.

    Args:
        model: gives `Features` for a batch of images.
        images: uint8, may be memory-mapped.
        indices: which images.
        batch_size: images per forward pass.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = [model(batch) for batch in iterate_images(images, indices, batch_size, device)]
    model.train(was_training)
    embedding, projection = (torch.cat(part).float().cpu() for part in zip(*parts, strict=True))
    return Features(embedding, projection)


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: UInt8[np.ndarray, "n h w c"],
    indices: Int[np.ndarray, " m"],
    batch_size: int,
) -> Tensor:
    """Logits `[m, classes]` of the images at `indices`, in that order, on the CPU, float32."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = [model(batch) for batch in iterate_images(images, indices, batch_size, device)]
    model.train(was_training)
    return torch.cat(parts).float().cpu()
