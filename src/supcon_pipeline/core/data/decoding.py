"""Decoding of image files to pixels."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from supcon_pipeline.core.messages import InputError

# What Pillow may try. Left out on purpose: formats that start other programs (EPS) or that nobody trains on.
# JPEG includes MPO, which many phones write as `.jpg`; PPM includes PGM and PBM.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM")
# A small file can decompress to more than the memory holds. 10,000 x 10,000 is still accepted.
MAX_PIXELS = 2**27
# The `PIL.Image.Transpose` that undoes each EXIF orientation (TIFF 6.0, tag 274).
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def decode_image(
    file: Path | bytes, least_side: int | None = None
) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image file, upright, on the scale 0 to 255.

    Grayscale keeps one channel, everything else becomes RGB. Transparency is composited on white, 16 bits are
    scaled to 8, and an animation gives its first frame. 32 bits are scaled like 16 unless none is above 255.

    Args:
        file: path or content.
        least_side: a JPEG with both sides at least twice as long may be decoded at a half, a quarter or an
            eighth of its size, but no smaller than this.

    Raises:
        InputError: if it is empty, not an image, or has more than `MAX_PIXELS` pixels.
        OSError: if it cannot be read or is truncated.
    """
    from PIL import Image, UnidentifiedImageError

    if not (len(file) if isinstance(file, bytes) else file.stat().st_size):
        raise InputError("file must hold an image, got an empty file")
    with warnings.catch_warnings():
        # Pillow warns about what it can recover from; for anything else it raises.
        warnings.simplefilter("ignore")
        try:
            source = io.BytesIO(file) if isinstance(file, bytes) else file
            with Image.open(source, formats=FORMATS) as image:
                return read_pixels(image, least_side)
        except UnidentifiedImageError as error:
            raise InputError(f"file must be an image, got none of {', '.join(FORMATS)}") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"image must have at most {MAX_PIXELS:,} pixels, got more") from error


def read_pixels(
    image: Any, least_side: int | None = None
) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The pixels of a PIL image, as `decode_image` gives them for a file.

    Raises:
        InputError: if it has more than `MAX_PIXELS` pixels, or values of more than 8 bits out of range.
    """
    from PIL import Image

    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"image must have at most {MAX_PIXELS:,} pixels, got {image.width:,} x {image.height:,}"
        )
    if least_side is not None:
        image.draft(None, (least_side, least_side))
    orientation = _read_orientation(image)
    # Pillow reads 16 bits of a PPM as 32, scaled to the full range of 16.
    has_sixteen_bits = image.mode.startswith("I;16") or image.format == "PPM"
    image.load()
    upright = _UPRIGHT.get(orientation)
    image = image.transpose(Image.Transpose[upright]) if upright else image
    return _to_eight_bits(image, has_sixteen_bits)


def _read_orientation(image: Any) -> int:
    """The EXIF orientation; 1 (upright) if the tags cannot be read, because the pixels still can."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _to_eight_bits(image: Any, has_sixteen_bits: bool) -> np.ndarray:
    """One or three channels, uint8."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep(np.asarray(image), has_sixteen_bits)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _scale_deep(pixels: np.ndarray, has_sixteen_bits: bool) -> np.ndarray:
    """Pixels of more than 8 bits, rescaled to 0 to 255: integers from 16 bits, floats from 1 or 255.

    Integers of 32 bits hold 16 bits, or 8 if none is above 255: programs write both.
    """
    low, high = pixels.min(), pixels.max()
    is_whole = np.issubdtype(pixels.dtype, np.integer)
    limit = 65535 if is_whole else 255
    if not (low >= 0 and high <= limit):
        raise InputError(f"pixels must be between 0 and {limit}, got {low} to {high}")
    scale = 255.0 if high <= 1 else 1.0
    if is_whole:
        scale = 1 / 257 if has_sixteen_bits or high > 255 else 1.0
    scaled: np.ndarray = np.round(pixels * np.float32(scale)).astype(np.uint8)
    return scaled
