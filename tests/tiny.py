"""Real images, few of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.datasets.digits import DigitsDataset


class TinyImagesDataset(DigitsDataset):
    """The first 40 digits of each of the first three classes, or as many as asked for."""

    def __init__(self, num_classes: int = 3, num_images: int = 40, metadata: Any = None):
        super().__init__(metadata=metadata)
        self.num_classes, self.num_images = num_classes, num_images

    def load(self) -> RawImages:
        raw = super().load()
        labels = range(self.num_classes)
        chosen = np.concatenate([np.flatnonzero(raw.labels == label)[: self.num_images] for label in labels])
        return RawImages(
            images=[raw.images[index] for index in chosen],
            labels=raw.labels[chosen],
            class_names=raw.class_names[: self.num_classes],
            ids=[raw.ids[index] for index in chosen],
            source=raw.source,
        )


def write_digits(folder: Path, count: int = 6, classes: Sequence[int] = (0, 1, 2)) -> list[Path]:
    """Real digits the tiny project was not given, as PNG files of some size, named by their class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = [index for index in np.flatnonzero(np.isin(digits.target, classes)) if index > 600][:count]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{digits.target[index]}-{index}.png" for index in chosen]
    for path, index in zip(paths, chosen, strict=True):
        pixels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(path)
    return paths
