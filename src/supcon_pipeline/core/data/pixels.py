"""Pixels of packed images: squares of one size, their statistics and hashes."""

import json
import mmap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int, UInt8

from supcon_pipeline.core.messages import InputError

if TYPE_CHECKING:
    from supcon_pipeline.core.data.encoded_images import StoredImages

Crop = Literal["pad", "crop", "stretch"]
# An image with its own aspect is seen and stored at most this many times as long as it is wide.
LONGEST = 4
# Bytes read from a memory map at a time.
_CHUNK_BYTES = 2**23


def pack_image(
    image: np.ndarray, image_size: int, num_channels: int, crop: Crop = "pad"
) -> UInt8[np.ndarray, "size size c"]:
    """One image at storage size: square, uint8, with `num_channels` channels (1 or 3).

    Enlarged by cubic and shrunk by area interpolation.

    Args:
        image: `[height, width]` or `[height, width, channels]`.
        image_size: height and width of the result.
        num_channels: channels of the result.
        crop: `pad` fits the longer side and repeats the border, so that nothing is cut off; `crop` takes the
            central square; both keep the aspect ratio, `stretch` does not.

    Raises:
        InputError: if the image is not uint8 or has neither 1 nor 3 channels.
    """
    import cv2

    image = _convert_channels(image, num_channels)
    if crop == "crop":
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        image = image[top : top + side, left : left + side]
    height, width = image.shape[:2]
    scale = image_size / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    size = (image_size, image_size) if crop == "stretch" else size
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    image = cv2.resize(image, size, interpolation=interpolation)
    top, left = (image_size - size[1]) // 2, (image_size - size[0]) // 2
    bottom, right = image_size - size[1] - top, image_size - size[0] - left
    image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return image.reshape(image_size, image_size, num_channels)


def fit_image(image: np.ndarray, image_size: int, num_channels: int) -> UInt8[np.ndarray, "h w c"]:
    """One image with its own aspect, shrunk by area interpolation where it is larger than it need be.

    Its shorter side is then at most `image_size`, and its longer side at most `LONGEST` times as long.

    Args:
        image: `[height, width]` or `[height, width, channels]`.
        image_size: longest that the shorter side may be.
        num_channels: channels of the result, 1 or 3.

    Raises:
        InputError: if the image is not uint8 or has neither 1 nor 3 channels.
    """
    import cv2

    image = _convert_channels(image, num_channels)
    height, width = image.shape[:2]
    scale = min(1, image_size / min(height, width), LONGEST * image_size / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image.reshape(*image.shape[:2], num_channels)


def enlarge_image(image: UInt8[np.ndarray, "h w c"], image_size: int) -> UInt8[np.ndarray, "h w c"]:
    """One image with its shorter side at least `image_size`, by cubic interpolation where it is not."""
    import cv2

    height, width, num_channels = image.shape
    scale = image_size / min(height, width)
    if scale <= 1:
        return image
    size = (round(width * scale), round(height * scale))
    enlarged: np.ndarray = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    return enlarged.reshape(*enlarged.shape[:2], num_channels)


def _convert_channels(image: np.ndarray, num_channels: int) -> np.ndarray:
    """The image in grayscale (1 channel) or RGB (3).

    Raises:
        InputError: if the image is not uint8 or has neither 1 nor 3 channels.
    """
    import cv2

    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.dtype != np.uint8 or channels not in (1, 3):
        raise InputError(
            f"image must be uint8 with 1 or 3 channels, got {image.dtype} with shape {image.shape}"
        )
    if channels == num_channels:
        return image
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if num_channels == 3 else cv2.COLOR_RGB2GRAY)


def read_chunks(
    images: "StoredImages", chosen: Int[np.ndarray, " m"] | None = None
) -> Iterator[UInt8[np.ndarray, "some h w c"]]:
    """The images, or those chosen, in order, a chunk at a time, each chunk a new array.

    Pages of a memory map are released after use, so that memory does not grow with the file.
    """
    count = len(images) if chosen is None else len(chosen)
    step = max(1, _CHUNK_BYTES // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        yield np.array(images[part if chosen is None else chosen[part]], order="C")
        if isinstance(images, np.ndarray) and isinstance(images.base, mmap.mmap):
            images.base.madvise(mmap.MADV_DONTNEED)


def shrink_images(images: "StoredImages", size: int) -> UInt8[np.ndarray, "n some some c"]:
    """The images shrunk to `size` pixels by area interpolation, in memory; smaller ones are unchanged.

    Args:
        images: square, may be memory-mapped.
        size: height and width that larger images are shrunk to.
    """
    import cv2

    if not isinstance(images, np.ndarray):
        # Decoded at about that size.
        return images.resized(min(size, images.image_size))[:]
    if images.shape[1] <= size:
        return images
    shrunk = np.empty((len(images), size, size, images.shape[-1]), dtype=np.uint8)
    rows = iter(shrunk)
    for chunk in read_chunks(images):
        for image, row in zip(chunk, rows, strict=False):
            row[:] = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).reshape(row.shape)
    return shrunk


def channel_statistics(
    images: "StoredImages", chosen: Int[np.ndarray, " m"] | None = None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over the chosen images, on the scale 0 to 1."""
    counts = np.zeros((images.shape[-1], 256), dtype=np.int64)
    for chunk in read_chunks(images, chosen):
        for channel, row in enumerate(counts):
            row += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256)
    mean = counts @ values / counts.sum(axis=1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    return (mean / 255).tolist(), (np.sqrt(variance) / 255).tolist()


def content_hash(images: "StoredImages", *columns: Iterable[object]) -> str:
    """SHA-256 of the shape, what is stored and the columns of the samples, as 64 hexadecimal digits."""
    from hashlib import sha256

    # Of encoded images, how they become squares is not to be seen in what is stored.
    told = images.shape if isinstance(images, np.ndarray) else (images.shape, images.crop)
    digest = sha256(repr(told).encode())
    for content in _read_contents(images):
        digest.update(content)
    for column in columns:
        digest.update(json.dumps([str(value) for value in column]).encode())
    return digest.hexdigest()


def pixel_hashes(images: "StoredImages") -> list[str]:
    """A hash of what is stored of each image, 32 hexadecimal digits: equal for equal images."""
    from hashlib import blake2b

    return [blake2b(content, digest_size=16).hexdigest() for content in _read_contents(images)]


def _read_contents(images: "StoredImages") -> Iterator[memoryview]:
    """What is stored of each image: pixels, or the bytes of a file."""
    if not isinstance(images, np.ndarray):
        yield from images.contents()
        return
    for chunk in read_chunks(images):
        for image in chunk:
            yield image.data
