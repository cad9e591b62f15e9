"""Encoders that take images of other sizes than those of their training."""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import Encoder, Sight

ONE_SIZE = "export.dynamic_resolution must be false for a network that is made for one size, got true"


@dataclass(frozen=True)
class _MiddleOfAnySize(Sight):
    """As `Sight` where that changes no size, and of images of other sizes the same share."""

    def apply(self, pixels: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c some some"]:
        """The middle."""
        start, (height, width) = round((self.stored_size - self.side) / 2), pixels.shape[-2:]
        top, left, rows, columns = (
            size * share // self.stored_size for share in (start, self.side) for size in (height, width)
        )
        return pixels[:, :, top : top + rows, left : left + columns]


def seeing_any_size(network: Encoder) -> Encoder:
    """The network as it sees images of any size.

    Raises:
        InputError: where it resizes them.
    """
    if network.sight is not None:
        sight = _MiddleOfAnySize(**asdict(network.sight))
        if sight.side != sight.image_size:
            raise InputError(
                f"{ONE_SIZE} (it sees {sight.side} pixels of an image as {sight.image_size}); leave it out"
            )
        network.sight = sight
    return network


def at_another_size(images: UInt8[np.ndarray, "n size size c"]) -> UInt8[np.ndarray, "n h w c"]:
    """The images repeated, so that they are twice as high and one and a half times as wide."""
    size = images.shape[1]
    return images[:, np.arange(2 * size) % size][:, :, np.arange(size + size // 2) % size]
