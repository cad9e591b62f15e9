"""Nodes of `data_prep`."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.class_splits import split_by_class
from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_store import PackingStore
from supcon_pipeline.core.data.pixels import channel_statistics, content_hash, pixel_hashes
from supcon_pipeline.core.data.samples import (
    check_labels,
    check_rejected,
    check_splits,
    count_images,
    describe_warnings,
    tabulate_packed,
)
from supcon_pipeline.core.data.splits import handle_leakage, split_by_image
from supcon_pipeline.core.parameters.data import DataPrepParameters

logger = logging.getLogger(__name__)
# What decides, besides the pixels, what is learned from which images, and in which batch.
_HASHED = ("id", "split", "label", "category")


def pack_images(
    raw_images: RawImages, packing_store: PackingStore, params: DataPrepParameters
) -> tuple[StoredImages, pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """All images at storage size, in source order, as squares of pixels or encoded.

    Beside them what the source says of each, those that could not be decoded with the reason, and the counts
    of what else the source holds. The source is read here and nowhere else: it may change between two nodes.
    """
    check_labels(raw_images.labels, raw_images.class_names)
    packing = Packing(params.image_size, params.num_channels, params.crop, params.storage)
    images, rejected = packing_store.pack(raw_images.images, packing, params.num_workers)
    return images, *tabulate_packed(raw_images, rejected), dict(raw_images.ignored)


def find_near_duplicates(
    prepared_images: StoredImages, packed_samples: pd.DataFrame, params: DataPrepParameters
) -> pd.DataFrame:
    """The pairs of images that show one photograph and are not identical, the most similar first.

    Of each image, the row, the id, the class and the split that the source gives it.
    """
    from supcon_pipeline.core.search.near_duplicates import near_duplicate_pairs, tabulate_pairs

    limit = (params.max_compared, params.seed)
    pairs = near_duplicate_pairs(prepared_images, params.near_duplicate_similarity, *limit)
    return tabulate_pairs(pairs, packed_samples)


def tabulate_samples(
    packed_samples: pd.DataFrame,
    prepared_images: StoredImages,
    rejected_images: pd.DataFrame,
    near_duplicates: pd.DataFrame,
    params: DataPrepParameters,
) -> pd.DataFrame:
    """One row per packed image, in their order: id, split, label, class name, source, hash of the pixels.

    And a number that duplicates share, whether they are identical or nearly so.
    """
    from supcon_pipeline.core.search.near_duplicates import group_duplicates

    check_rejected(rejected_images, packed_samples, params.max_rejected)
    samples = packed_samples.assign(pixel_hash=pixel_hashes(prepared_images))
    samples["duplicate_group"] = group_duplicates(samples["pixel_hash"], near_duplicates)
    split = split_by_class if params.split_by == "class" else split_by_image
    samples = split(samples, params.validation_fraction, params.test_fraction, params.seed)
    check_splits(samples)
    return handle_leakage(samples, params.on_leakage)


def describe_dataset(
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    rejected_images: pd.DataFrame,
    ignored_files: dict[str, int],
    near_duplicates: pd.DataFrame,
    params: DataPrepParameters,
) -> dict[str, Any]:
    """The dataset card: counts, what was left out, channel statistics of train, warnings, content hash.

    The warnings are shown too, a line each.
    """
    mean, std = channel_statistics(prepared_images, np.flatnonzero(samples["split"] == "train"))
    counts = count_images(samples)
    brightness = max(np.add(mean, std))
    found = describe_warnings(samples, len(rejected_images), ignored_files, brightness, near_duplicates)
    for warning in found:
        logger.warning("%s", warning)
    return {
        "num_images": len(samples),
        "num_rejected": len(rejected_images),
        "ignored": ignored_files,
        "source": samples["source"].iloc[0],
        "warnings": found,
        "image_shape": list(prepared_images.shape[1:]),
        **params.model_dump(include={"crop", "storage"}),
        "class_names": list(counts["train"]),
        "counts": counts,
        "mean": mean,
        "std": std,
        "data_hash": content_hash(prepared_images, *(samples[name] for name in _HASHED if name in samples)),
    }
