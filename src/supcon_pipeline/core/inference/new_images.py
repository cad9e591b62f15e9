"""New images of any kind and size, packed as a model takes them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from supcon_pipeline.core.data.decoding import decode_image, read_pixels
from supcon_pipeline.core.data.images import ImageItem, RawImages
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_pool import pack_stream
from supcon_pipeline.core.data.pixels import pack_image
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import input_size
from supcon_pipeline.core.named_tensors import NamedTensors


def list_images(images: Any) -> list[Any]:
    """One image, an array of several images or a sequence of images, as a list."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    is_one = isinstance(images, str | bytes | PathLike) or hasattr(images, "read")
    if is_one or not isinstance(images, Iterable):
        return [images]
    return list(images)


def pack_new_image(image: Any, packing: Packing) -> UInt8[np.ndarray, "size size c"]:
    """An image of any size, packed like the training images.

    Args:
        image: a path, the bytes of an image file, a file opened in binary mode, a PIL image, or a uint8 array
            `[height, width]` or `[height, width, channels]` with 1, 3 or, including transparency, 4 channels.
        packing: size, channels and crop of the training images.

    Raises:
        InputError: where it is none of these, or an array of a type other than uint8.
        OSError: where a file cannot be read.
    """
    image = image.read() if hasattr(image, "read") else image
    if isinstance(image, str | PathLike):
        pixels = decode_image(Path(image), packing.least_side)
    elif isinstance(image, bytes):
        pixels = decode_image(image, packing.least_side)
    elif isinstance(image, np.ndarray):
        pixels = _without_transparency(image)
    elif hasattr(image, "getexif"):
        pixels = read_pixels(image)
    else:
        raise InputError(
            "image must be a path, the bytes of a file, a PIL image or a uint8 array, "
            f"got {type(image).__name__}"
        )
    return pack_image(pixels, packing.image_size, packing.num_channels, packing.crop)


def _without_transparency(image: np.ndarray) -> np.ndarray:
    """An array of four channels blended with white, as files with transparency are; any other unchanged."""
    from PIL import Image

    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 4:
        return read_pixels(Image.fromarray(image))
    return image


def read_images(
    raw: RawImages, encoder: NamedTensors, num_workers: int
) -> tuple[UInt8[np.ndarray, "n size size c"], pd.DataFrame, pd.DataFrame]:
    """The images of a source, packed as an encoder takes them, and those that cannot be read.

    Args:
        raw: the images; labels are not used.
        encoder: its metadata say how the training images were packed.
        num_workers: processes that decode and resize; 0 uses this one.

    Returns:
        The packed images; a table with the id of each in `image`; a table with `image` and `reason` of those
        that cannot be read.

    Raises:
        InputError: where no image can be read.
    """
    model, ids = encoder.metadata["model"], np.array(raw.ids, dtype=object)
    packing = Packing(input_size(model), len(model["mean"]), encoder.metadata["crop"])
    images, unreadable = pack_readable(raw.images, packing, num_workers)
    if not len(images):
        row, reason = next(iter(unreadable.items()))
        raise InputError(
            f"{raw.source} must hold an image that can be read, got {len(ids)} that cannot be; "
            f"the first is {ids[row]}: {reason}"
        )
    reasons = pd.DataFrame({"image": ids[list(unreadable)], "reason": list(unreadable.values())})
    return images, pd.DataFrame({"image": np.delete(ids, list(unreadable))}), reasons


def pack_readable(
    items: Sequence[ImageItem], packing: Packing, num_workers: int = 0
) -> tuple[UInt8[np.ndarray, "n size size c"], dict[int, str]]:
    """The readable images in their order, and for each other, by its position, why it cannot be read.

    Args:
        items: images of a source.
        packing: how they are packed.
        num_workers: processes that decode and resize; 0 uses this one.
    """
    from rich.progress import track

    # Memory is allocated only as it is written to.
    images = np.empty((len(items), *packing.shape), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    packed: Iterable[Any] = pack_stream(items, packing, num_workers)
    packed = track(packed, "Reading images", len(items), transient=True)
    for index, image in enumerate(packed):
        if isinstance(image, str):
            unreadable[index] = image
        else:
            images[index - len(unreadable)] = image
    return images[: len(items) - len(unreadable)], unreadable


def name_by_path(raw: RawImages) -> RawImages:
    """The images with ids that begin with their source, so that they differ from those of any run."""
    return replace(raw, ids=[f"{raw.source}/{name}" for name in raw.ids])


def held_out_images(raw: RawImages) -> RawImages:
    """The test images if the source has such a split, else all images."""
    from torch.utils.data import Subset

    rows = [row for row, split in enumerate(raw.splits or ()) if split == "test"]
    if not rows:
        return raw
    images: Any = Subset(cast(Any, raw.images), rows)
    ids = [raw.ids[row] for row in rows]
    return replace(raw, images=images, labels=raw.labels[rows], ids=ids, splits=["test"] * len(rows))
