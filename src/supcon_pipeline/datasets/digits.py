"""The handwritten digits that ship with scikit-learn."""

from typing import Any

import numpy as np

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.datasets.image_source import ImageSource


class DigitsDataset(ImageSource):
    """1,797 grayscale images of 8 x 8 pixels in ten classes; needs no network.

    Source:
        Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Repository.
    """

    def __init__(self, metadata: dict[str, Any] | None = None):
        self.metadata = metadata

    def load(self) -> RawImages:
        """The digits, scaled from 0..16 to 0..255."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        return RawImages(
            images=list(images),
            labels=digits.target.astype(np.int64),
            class_names=[str(name) for name in digits.target_names],
            ids=[f"digit-{index:04d}" for index in range(len(images))],
            source="sklearn.datasets.load_digits",
        )

    def _describe(self) -> dict[str, Any]:
        return {"source": "sklearn.datasets.load_digits"}
