"""New images, as people have them, at the size a model takes."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from supcon_pipeline.core.images import pack_image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def decode_image(path: str | PathLike[str]) -> np.ndarray:
    """The pixels of an image file, upright, uint8 `[height, width]` or `[height, width, 3]`.

    Raises:
        ValueError: where its channels have more than 8 bits.
        OSError: where the file is missing, no image, or cut short.
    """
    from PIL import Image

    with Image.open(path) as image:
        return convert_picture(image)


def convert_picture(picture: Any) -> np.ndarray:
    """The pixels of a PIL image: upright by its EXIF tag, transparency laid on white, grey or RGB.

    Raises:
        ValueError: where its channels have more than 8 bits.
    """
    from PIL import Image, ImageOps

    if picture.mode.startswith("I") or picture.mode == "F":
        raise ValueError(f"image must have 8 bits per channel, got mode {picture.mode}; convert it first")
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def list_images(images: Any) -> list[Any]:
    """One image, an array of several or a sequence of images, as a list."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | PathLike) or not isinstance(images, Iterable):
        return [images]
    return list(images)


def pack_new_image(image: Any, image_size: int, num_channels: int) -> UInt8[np.ndarray, "size size c"]:
    """A path, a PIL image or an array of any size, packed as the images of training were.

    Raises:
        ValueError: where it is none of these, or an array of another type than uint8.
        OSError: where a file cannot be read.
    """
    if isinstance(image, str | PathLike):
        pixels = decode_image(image)
    elif isinstance(image, np.ndarray):
        pixels = image
    elif hasattr(image, "getexif"):
        pixels = convert_picture(image)
    else:
        raise ValueError(f"image must be a path, a PIL image or a uint8 array, got {type(image).__name__}")
    return pack_image(pixels, image_size, num_channels)


def find_images(folder: str | PathLike[str] | None) -> list[Path]:
    """The image files in a folder and all below it, by their names, in order; hidden ones are left out.

    Raises:
        ValueError: where there is no such folder, or no image in it.
    """
    place = Path(folder or "").expanduser()
    if not folder or not place.is_dir():
        raise ValueError(f"inference.path must be a folder of images, got {folder!r}")
    found = sorted(
        path
        for path in place.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not _is_hidden(path.relative_to(place))
    )
    if not found:
        raise ValueError(
            f"inference.path must hold images ({', '.join(SUFFIXES)}), got none in {str(folder)!r}"
        )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def pack_readable(
    paths: Sequence[Path], image_size: int, num_channels: int
) -> tuple[UInt8[np.ndarray, "n size size c"], list[int], list[tuple[int, str]]]:
    """The images that can be read, which these are, and the others with the reason.

    Raises:
        ValueError: where none can be read.
    """
    images, readable, unreadable = [], [], []
    for index, path in enumerate(paths):
        try:
            images.append(pack_new_image(path, image_size, num_channels))
            readable.append(index)
        # A decoder can fail in many ways, and one file must not end the others.
        except Exception as error:
            unreadable.append((index, " ".join(str(error).split()) or type(error).__name__))
    if not images:
        raise ValueError(
            f"inference.path must hold an image that can be read, got {len(paths)} that cannot; "
            f"the first: {paths[0]}: {unreadable[0][1]}"
        )
    return np.stack(images), readable, unreadable
