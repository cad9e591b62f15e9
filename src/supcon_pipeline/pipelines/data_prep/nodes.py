"""Nodes of `data_prep`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.images import RawImages, channel_statistics, content_hash, pack_image, split_samples
from supcon_pipeline.core.parameters import DataPrepParameters


def pack_images(raw_images: RawImages, params: DataPrepParameters) -> np.ndarray:
    """All images at storage size, `[n, image_size, image_size, num_channels]` uint8, in source order."""
    return np.stack(
        [pack_image(image, params.image_size, params.num_channels) for image in raw_images.images]
    )


def tabulate_samples(raw_images: RawImages, params: DataPrepParameters) -> pd.DataFrame:
    """One row per image, in source order: id, split, label, class name, source."""
    labels = np.asarray(raw_images.labels)
    splits = split_samples(labels, params.validation_fraction, params.test_fraction, params.seed)
    return pd.DataFrame(
        {
            "id": list(raw_images.ids),
            "split": splits,
            "label": labels,
            "class_name": [raw_images.class_names[label] for label in labels],
            "source": raw_images.source,
        }
    )


def describe_dataset(prepared_images: np.ndarray, samples: pd.DataFrame) -> dict[str, Any]:
    """The dataset card: counts, channel statistics of the training images, content hash."""
    is_train = (samples["split"] == "train").to_numpy()
    mean, std = channel_statistics(prepared_images[is_train])
    classes = samples.drop_duplicates("label").sort_values("label")["class_name"].tolist()
    counts = pd.crosstab(samples["split"], samples["class_name"])
    return {
        "num_images": len(samples),
        "image_shape": list(prepared_images.shape[1:]),
        "class_names": classes,
        "counts": {split: counts.loc[split, classes].to_dict() for split in ("train", "validation", "test")},
        "mean": mean,
        "std": std,
        "data_hash": content_hash(prepared_images, *(samples[column] for column in ("id", "split", "label"))),
    }
