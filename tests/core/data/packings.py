from collections.abc import Sequence
from pathlib import Path

import numpy as np

from supcon_pipeline.core.data.encoded_images import EncodedImages, encode_image, open_images
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_store import write_encoded

PACKING = Packing(image_size=8, num_channels=3, crop="pad")


def encoded_in(
    path: Path, images: Sequence[np.ndarray], size: int = 64, num_channels: int = 3, crop: str = "crop"
) -> EncodedImages:
    """Images as `data_prep.storage=encoded` has them, in a new file."""
    encoded = [encode_image(image, size, num_channels) for image in images]
    with path.open("wb") as file:
        assert write_encoded(file, encoded, (size, size, num_channels), crop) == []
    return open_images(path)
