"""What TensorBoard's projector shows: vectors, what is known of each, and a small picture of it."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# The projector takes one picture of all images, and no browser a texture wider than this.
MAX_PIXELS = 8192
MAX_SIZE = 64


@dataclass(frozen=True)
class Projection:
    """One row of each per image.

    Args:
        vectors: what is projected.
        table: what is known of each image.
        sprites: pictures [n, 3, size, size] in [0, 1].
    """

    vectors: Float[Tensor, "n dim"]
    table: pd.DataFrame
    sprites: Float[Tensor, "n 3 size size"]


def small_pictures(images: UInt8[np.ndarray, "n h w c"]) -> Float[Tensor, "n 3 size size"]:
    """The images in colour, at most 64 pixels wide and small enough that all fit one texture of 8192."""
    num_columns = math.ceil(math.sqrt(len(images)))
    size = max(1, min(images.shape[1], MAX_SIZE, MAX_PIXELS // num_columns))
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    if size < images.shape[1]:
        pixels = torch.nn.functional.interpolate(pixels, size=(size, size), mode="area")
    return pixels.expand(-1, 3, -1, -1)
