"""Packing: any image as a square of one size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from supcon_pipeline.core.data.decoding import decode_image
from supcon_pipeline.core.data.encoded_images import EncodedImage, encode_image
from supcon_pipeline.core.data.images import ImageItem
from supcon_pipeline.core.data.pixels import Crop, pack_image

Packed = np.ndarray | EncodedImage | str
Storage = Literal["squares", "encoded"]


@dataclass(frozen=True)
class Packing:
    """How images are stored.

    Args:
        image_size: height and width.
        num_channels: 1 or 3.
        crop: how other images become square, see `pack_image`.
        storage: `squares` of raw pixels, or `encoded` images with their own aspect, which become square when
            they are read.
    """

    image_size: int
    num_channels: int
    crop: Crop
    storage: Storage = "squares"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image as a square, `(h, w, c)`."""
        return self.image_size, self.image_size, self.num_channels

    @property
    def least_side(self) -> int:
        """The size down to which a large JPEG may be decoded: enough for area interpolation."""
        return 2 * self.image_size

    def pack(self, item: ImageItem) -> Packed:
        """The image at storage size, or the reason why it cannot be packed."""
        try:
            pixels = item if isinstance(item, np.ndarray) else decode_image(item, self.least_side)
            if self.storage == "encoded":
                return encode_image(pixels, self.image_size, self.num_channels)
            return pack_image(pixels, self.image_size, self.num_channels, self.crop)
        except Exception as error:
            # Any decoder error is the file's fault, and one bad file must not stop the rest.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return " ".join(reason.split())

    def pack_all(self, items: Sequence[ImageItem]) -> list[Packed]:
        """`pack` for each item; runs in a worker process."""
        return [self.pack(item) for item in items]
