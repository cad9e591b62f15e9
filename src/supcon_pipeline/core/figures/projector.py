"""What TensorBoard's projector shows: vectors, what is known of each, and a small picture of it."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.models.embed import iterate_images

# The projector takes one picture of all images, and no browser a texture wider than this.
MAX_PIXELS = 8192
MAX_SIZE = 64
# Images that are held at full size at once.
BATCH_SIZE = 64


@dataclass(frozen=True)
class ProjectorPoints:
    """One row of each per image.

    Args:
        vectors: what the projector draws in two or three dimensions.
        table: what is known of each image.
        sprites: pictures [n, 3, size, size] in [0, 1].
    """

    vectors: Float[Tensor, "n dim"]
    table: pd.DataFrame
    sprites: Float[Tensor, "n 3 size size"]


def small_pictures(images: StoredImages, indices: Int[np.ndarray, " m"]) -> Float[Tensor, "m 3 size size"]:
    """The images at `indices` in colour, at most 64 pixels wide and so small that all fit a texture of 8192.

    They are shrunk a few at a time; `images` may be memory-mapped.
    """
    num_columns = math.ceil(math.sqrt(len(indices)))
    size = max(1, min(images.shape[1], MAX_SIZE, MAX_PIXELS // num_columns))
    batches = iterate_images(images, indices, BATCH_SIZE, torch.device("cpu"))
    return torch.cat([_shrink(batch, size) for batch in batches]).expand(-1, 3, -1, -1)


def _shrink(batch: UInt8[Tensor, "n h w c"], size: int) -> Float[Tensor, "n c size size"]:
    pixels = batch.permute(0, 3, 1, 2).float() / 255
    if size == batch.shape[1]:
        return pixels
    return torch.nn.functional.interpolate(pixels, size=(size, size), mode="area")
