"""Nodes of `data_prep`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.images import SPLITS, RawImages, channel_statistics, content_hash, pixel_hashes
from supcon_pipeline.core.parameters import DataPrepParameters, Stage1Parameters
from supcon_pipeline.core.samples import (
    check_labels,
    check_rejected,
    describe_warnings,
    handle_leakage,
    split_samples,
)


def pack_images(
    raw_images: RawImages, packing: Any, params: DataPrepParameters
) -> tuple[np.ndarray, pd.DataFrame]:
    """All images at storage size, `[n, image_size, image_size, num_channels]` uint8, in source order.

    Beside them those that could not be decoded, with the reason.
    """
    from supcon_pipeline.core.packing import Packing

    check_labels(raw_images.labels, raw_images.class_names)
    storage = Packing(params.image_size, params.num_channels, params.crop)
    images, rejected = packing.pack(raw_images.images, storage, params.num_workers)
    names = np.array(raw_images.class_names)[raw_images.labels]
    rows = [(raw_images.ids[position], names[position], reason) for position, reason in rejected]
    return images, pd.DataFrame(rows, columns=["id", "class_name", "reason"])


def tabulate_samples(
    raw_images: RawImages,
    prepared_images: np.ndarray,
    rejected_images: pd.DataFrame,
    params: DataPrepParameters,
) -> pd.DataFrame:
    """One row per packed image, in their order: id, split, label, class name, source, hash of the pixels."""
    check_rejected(rejected_images, params.max_rejected)
    columns = {"id": list(raw_images.ids), "split": raw_images.splits or "train", "label": raw_images.labels}
    samples = pd.DataFrame(columns)
    samples = samples[~samples["id"].isin(rejected_images["id"])].reset_index(drop=True)
    check_labels(samples["label"].to_numpy(), raw_images.class_names)
    samples["class_name"] = np.array(raw_images.class_names)[samples["label"]]
    samples["source"] = raw_images.source
    samples["pixel_hash"] = pixel_hashes(prepared_images)
    shares = (params.validation_fraction, params.test_fraction, params.seed)
    given = samples["split"].tolist() if raw_images.splits else None
    samples["split"] = split_samples(samples["class_name"].to_numpy(), *shares, given)
    return handle_leakage(samples, params.on_leakage)


def describe_dataset(
    raw_images: RawImages,
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    rejected_images: pd.DataFrame,
    params: DataPrepParameters,
    stage1: Stage1Parameters,
) -> dict[str, Any]:
    """The dataset card: counts, what was left out, channel statistics of train, warnings, content hash."""
    train = np.flatnonzero(samples["split"] == "train")
    mean, std = channel_statistics(prepared_images, train)
    classes = samples.drop_duplicates("label").sort_values("label")["class_name"].tolist()
    counts = pd.crosstab(samples["split"], samples["class_name"])
    batch_size = stage1.loader.batch_size if stage1.loader.sampler == "shuffled" else None
    return {
        "num_images": len(samples),
        "num_rejected": len(rejected_images),
        "ignored": dict(raw_images.ignored),
        "source": raw_images.source,
        "warnings": describe_warnings(samples, len(rejected_images), raw_images.ignored, batch_size),
        "image_shape": list(prepared_images.shape[1:]),
        "crop": params.crop,
        "class_names": classes,
        "counts": {split: counts.loc[split, classes].to_dict() for split in SPLITS},
        "mean": mean,
        "std": std,
        "data_hash": content_hash(prepared_images, *(samples[column] for column in ("id", "split", "label"))),
    }
