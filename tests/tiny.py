"""Real images, few of them."""

import numpy as np

from supcon_pipeline.core.images import RawImages
from supcon_pipeline.datasets.digits import DigitsDataset


class TinyImagesDataset(DigitsDataset):
    """The first 40 digits of each of the first three classes."""

    def load(self) -> RawImages:
        raw = super().load()
        chosen = np.concatenate([np.flatnonzero(raw.labels == label)[:40] for label in range(3)])
        return RawImages(
            images=[raw.images[index] for index in chosen],
            labels=raw.labels[chosen],
            class_names=raw.class_names[:3],
            ids=[raw.ids[index] for index in chosen],
            source=raw.source,
        )
