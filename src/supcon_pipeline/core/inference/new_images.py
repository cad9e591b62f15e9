"""New images, as people have them, at the size a model takes."""

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
from supcon_pipeline.core.named_tensors import NamedTensors


def list_images(images: Any) -> list[Any]:
    """One image, an array of several or a sequence of images, as a list."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    is_one = isinstance(images, str | bytes | PathLike) or hasattr(images, "read")
    if is_one or not isinstance(images, Iterable):
        return [images]
    return list(images)


def pack_new_image(image: Any, packing: Packing) -> UInt8[np.ndarray, "size size c"]:
    """An image of any size, packed as the images of training were.

    Args:
        image: a path, the bytes of an image file, such a file opened for reading, a PIL image, or a uint8
            array `[height, width]` or `[height, width, channels]` of 1, 3 or, with transparency, 4 channels.
        packing: how.

    Raises:
        InputError: where it is none of these, or an array of another type than uint8.
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
    """An array of four channels laid on white, as a file of such pixels is; any other as it is."""
    from PIL import Image

    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 4:
        return read_pixels(Image.fromarray(image))
    return image


def read_images(
    raw: RawImages, encoder: NamedTensors, num_workers: int
) -> tuple[UInt8[np.ndarray, "n size size c"], pd.DataFrame, pd.DataFrame]:
    """The images of a source as an encoder takes them, a table of them, and one of those that are unreadable.

    Args:
        raw: the images; their labels do not matter.
        encoder: its metadata say how the images of its training were packed.
        num_workers: processes that decode and resize; 0 does it in this one.

    Returns:
        Images; the id of each as `image`; `image` and `reason` of the others.

    Raises:
        InputError: where no image can be read.
    """
    model, ids = encoder.metadata["model"], np.array(raw.ids, dtype=object)
    packing = Packing(model["image_size"], len(model["mean"]), encoder.metadata["crop"])
    images, unreadable = pack_readable(raw.images, packing, num_workers)
    if not len(images):
        row, reason = next(iter(unreadable.items()))
        raise InputError(
            f"{raw.source} must hold an image that can be read, got {len(ids)} that cannot; "
            f"the first: {ids[row]}: {reason}"
        )
    reasons = pd.DataFrame({"image": ids[list(unreadable)], "reason": list(unreadable.values())})
    return images, pd.DataFrame({"image": np.delete(ids, list(unreadable))}), reasons


def pack_readable(
    items: Sequence[ImageItem], packing: Packing, num_workers: int = 0
) -> tuple[UInt8[np.ndarray, "n size size c"], dict[int, str]]:
    """The images that can be read, in their order, and why each of the others cannot, by its place.

    Args:
        items: as a source gives them.
        packing: how they are stored.
        num_workers: processes that decode and resize; 0 does it in this one.
    """
    from rich.progress import track

    # Memory is taken as it is written to, and none of it twice.
    images = np.empty((len(items), *packing.shape), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    packed = track(pack_stream(items, packing, num_workers), "read images", len(items), transient=True)
    for index, image in enumerate(packed):
        if isinstance(image, str):
            unreadable[index] = image
        else:
            images[index - len(unreadable)] = image
    return images[: len(items) - len(unreadable)], unreadable


def held_out_images(raw: RawImages) -> RawImages:
    """The images of test where the source has such a split, else all of them."""
    from torch.utils.data import Subset

    rows = [row for row, split in enumerate(raw.splits or ()) if split == "test"]
    if not rows:
        return raw
    images: Any = Subset(cast(Any, raw.images), rows)
    ids = [raw.ids[row] for row in rows]
    return replace(raw, images=images, labels=raw.labels[rows], ids=ids, splits=["test"] * len(rows))
