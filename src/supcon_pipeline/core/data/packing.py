"""Packing: any image as a square of one size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supcon_pipeline.core.data.decoding import decode_image
from supcon_pipeline.core.data.images import Crop, ImageItem
from supcon_pipeline.core.data.pixels import pack_image

Packed = np.ndarray | str


@dataclass(frozen=True)
class Packing:
    """How images are stored.

    Args:
        image_size: height and width.
        num_channels: 1 or 3.
        crop: how other images become square, see `pack_image`.
    """

    image_size: int
    num_channels: int
    crop: Crop

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, `(h, w, c)`."""
        return self.image_size, self.image_size, self.num_channels

    @property
    def least_side(self) -> int:
        """The size down to which a large JPEG may be decoded: enough for area interpolation."""
        return 2 * self.image_size

    def pack(self, item: ImageItem) -> Packed:
        """The image at storage size, or the reason why it cannot be packed."""
        try:
            pixels = item if isinstance(item, np.ndarray) else decode_image(item, self.least_side)
            return pack_image(pixels, self.image_size, self.num_channels, self.crop)
        except Exception as error:
            # Any decoder error is the file's fault, and one bad file must not stop the rest.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return " ".join(reason.split())

    def pack_all(self, items: Sequence[ImageItem]) -> list[Packed]:
        """`pack` for each item; runs in a worker process."""
        return [self.pack(item) for item in items]
