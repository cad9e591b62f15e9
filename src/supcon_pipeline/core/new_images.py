"""New images, as people have them, at the size a model takes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from supcon_pipeline.core.decoding import decode_image, read_pixels
from supcon_pipeline.core.image_files import ENDINGS, printable, walk_images
from supcon_pipeline.core.images import pack_image
from supcon_pipeline.core.packing import Packing, pack_stream
from supcon_pipeline.core.tensors import NamedTensors


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
        ValueError: where it is none of these, or an array of another type than uint8.
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
        raise ValueError(
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


def find_images(folder: str | PathLike[str] | None, name: str = "inference.path") -> list[Path]:
    """The image files in a folder and all below it, those that a folder of training images would give.

    Args:
        folder: to look in.
        name: of the parameter, for errors.

    Raises:
        ValueError: where there is no such folder, or no image in it.
    """
    place = Path(folder or "").expanduser()
    if not folder or not place.is_dir():
        raise ValueError(f"{name} must be a folder of images, got {folder!r}")
    found = [Path(file) for file in walk_images(place, Counter())]
    if not found:
        raise ValueError(f"{name} must hold images ({', '.join(ENDINGS)}), got none in {printable(place)!r}")
    return found


def read_folder(
    path: str | None, encoder: NamedTensors, num_workers: int, name: str
) -> tuple[UInt8[np.ndarray, "n size size c"], pd.DataFrame, pd.DataFrame]:
    """The images of a folder as an encoder takes them, a table of them, and one of those that are unreadable.

    Args:
        path: of the folder.
        encoder: its metadata say how the images of its training were packed.
        num_workers: processes that decode and resize; 0 does it in this one.
        name: of the parameter, for errors.

    Returns:
        Images; their `path`; `path` and `reason` of the others.

    Raises:
        ValueError: where there is no such folder, or no image in it that can be read.
    """
    model, paths = encoder.metadata["model"], find_images(path, name)
    packing = Packing(model["image_size"], len(model["mean"]), encoder.metadata["crop"])
    images, readable, unreadable = pack_readable(paths, packing, num_workers, name)
    reasons = [(printable(paths[index]), reason) for index, reason in unreadable]
    table = pd.DataFrame({"path": [printable(paths[index]) for index in readable]})
    return images, table, pd.DataFrame(reasons, columns=["path", "reason"])


def pack_readable(
    paths: Sequence[Path], packing: Packing, num_workers: int = 0, name: str = "inference.path"
) -> tuple[UInt8[np.ndarray, "n size size c"], list[int], list[tuple[int, str]]]:
    """The images that can be read, which these are, and the others with the reason.

    Args:
        paths: of image files.
        packing: how they are stored.
        num_workers: processes that decode and resize; 0 does it in this one.
        name: of the parameter, for errors.

    Raises:
        ValueError: where none can be read.
    """
    from rich.progress import track

    # Memory is taken as it is written to, and none of it twice.
    images = np.empty((len(paths), *packing.shape), dtype=np.uint8)
    readable: list[int] = []
    unreadable: list[tuple[int, str]] = []
    packed = track(pack_stream(paths, packing, num_workers), "read images", len(paths), transient=True)
    for index, image in enumerate(packed):
        if isinstance(image, str):
            unreadable.append((index, image))
        else:
            images[len(readable)] = image
            readable.append(index)
    if not readable:
        raise ValueError(
            f"{name} must hold an image that can be read, got {len(paths)} that cannot; "
            f"the first: {paths[0]}: {unreadable[0][1]}"
        )
    return images[: len(readable)], readable, unreadable
