"""Pixels of 8 bits from PIL images of any mode."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import UInt8

from supcon_pipeline.core.messages import InputError

# Tags of TIFF 6.0.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
# What Pillow multiplies grey of fewer bits by, but not the grey that is transparent.
_GREY_STEPS = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Layout:
    """How a file stores its pixels, as far as Pillow forgets it once it has loaded them.

    Args:
        raw_mode: the name that Pillow has for it; empty for an image that is no file, or already loaded.
        greatest: white, for whole numbers; 0 where the values have to tell.
        is_inverted: whether white is stored as zero, and Pillow leaves it so.
    """

    raw_mode: str
    greatest: int
    is_inverted: bool

    @classmethod
    def of(cls, image: Any) -> Self:
        """The layout of a PIL image that has not been loaded.

        Raises:
            InputError: where Pillow would read other values than the file has.
        """
        arguments = next((tile[3] for tile in getattr(image, "tile", ())), "")
        raw_mode = arguments if isinstance(arguments, str) else next(iter(arguments or ()), "")
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(_BITS)
        if tags.get(_SAMPLE_FORMAT) == (2,) and bits == (8,):
            raise InputError("pixels must be at least 0, got signed ones of 8 bits; convert them to unsigned")
        if raw_mode == "RGB;16B" and "transparency" in image.info:
            raise _deep_transparency()
        # Pillow reads 16 bits of a PPM as 32, scaled to the full range of 16.
        has_sixteen = image.mode.startswith("I;16") or image.format == "PPM"
        greatest = 4095 if bits == (12,) else 65535 if has_sixteen else 0
        is_inverted = tags.get(_PHOTOMETRIC) == 0 and image.mode in ("I;16", "I;16B", "I", "F")
        return cls(str(raw_mode or ""), greatest, is_inverted)


def to_eight_bits(image: Any, layout: Layout) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The pixels of a loaded PIL image; grey keeps one channel, what is transparent lies on white.

    Raises:
        InputError: where it is transparent everywhere, or its colours or values are not supported.
    """
    transparent = image.info.get("transparency")
    is_grey = image.mode in ("1", "L", "F") or image.mode.startswith("I")
    if is_grey:
        pixels = _read_grey(image, layout)
        if isinstance(transparent, int):
            pixels[_is_transparent_grey(image, transparent, layout)] = 255
        return pixels
    if image.has_transparency_data:
        return _lay_on_white(image)
    return np.asarray(_convert(image, "RGB"))


def _read_grey(image: Any, layout: Layout) -> np.ndarray:
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    pixels = _scale_deep(np.asarray(image), layout.greatest)
    return 255 - pixels if layout.is_inverted else pixels


def _is_transparent_grey(image: Any, transparent: int, layout: Layout) -> np.ndarray:
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    is_transparent: np.ndarray = values == transparent * _GREY_STEPS.get(layout.raw_mode, 1)
    if is_transparent.all():
        raise _invisible()
    return is_transparent


def _lay_on_white(image: Any) -> np.ndarray:
    from PIL import Image

    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:
        raise _deep_transparency()
    image = _convert(image.convert("LA") if image.mode == "La" else image, "RGBA")
    if image.getextrema()[3][1] == 0:
        raise _invisible()
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def _convert(image: Any, mode: str) -> Any:
    try:
        return image.convert(mode)
    except ValueError:
        raise InputError(
            f"colours must be grey, RGB, CMYK, YCbCr or those of a palette, got {image.mode}; "
            "convert the image to RGB"
        ) from None


def _scale_deep(pixels: np.ndarray, greatest: int) -> np.ndarray:
    """Pixels of more than 8 bits, rescaled to 0 to 255: integers from 16 bits, floats from 1 or 255.

    Integers of 32 bits hold 16 bits, or 8 if none is above 255: programs write both.
    """
    low, high = pixels.min(), pixels.max()
    is_whole = np.issubdtype(pixels.dtype, np.integer)
    limit = (greatest or 65535) if is_whole else 255
    if not (low >= 0 and high <= limit):
        raise InputError(f"pixels must be between 0 and {limit}, got {low} to {high}")
    scale = 255.0 if high <= 1 else 1.0
    if is_whole:
        scale = 255 / limit if greatest or high > 255 else 1.0
    scaled: np.ndarray = np.round(pixels * np.float32(scale)).astype(np.uint8)
    return scaled


def _invisible() -> InputError:
    return InputError(
        "image must show something, got one that is transparent everywhere; "
        "remove its transparency, or the file"
    )


def _deep_transparency() -> InputError:
    return InputError(
        "a transparent colour must be of 8 bits, got one of 16; save the image with 8 bits, or with alpha"
    )
