"""Decoding of image files to pixels."""

import ctypes
import io
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from supcon_pipeline.core.data.eight_bits import Layout, to_eight_bits
from supcon_pipeline.core.data.file_kinds import HEAD_BYTES, damaged, format_of, is_heic, not_an_image
from supcon_pipeline.core.data.image_memory import require_memory, require_webp_canvas
from supcon_pipeline.core.data.png import SIGNATURE, keep_pixels
from supcon_pipeline.core.data.tiff import require_sound_strips
from supcon_pipeline.core.messages import InputError

# What Pillow may try. Left out on purpose: formats that start other programs (EPS) or that nobody trains on.
# JPEG includes MPO, which many phones write as `.jpg`; PPM includes PGM and PBM.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF")
# A small file can decompress to more than the memory holds. 10,000 x 10,000 is still accepted.
MAX_PIXELS = 2**27
# What Pillow's decoders raise for damaged files, that of AVIF last, beside OSError without a number.
_DECODER_ERRORS = (
    *(SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, struct.error),
    RuntimeError,
)
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
        InputError: if it is empty, not an image, damaged, transparent everywhere, has more than
            `MAX_PIXELS` pixels, or would take more than `image_memory.MAX_BYTES`.
        OSError: if it cannot be read.
    """
    if not (len(file) if isinstance(file, bytes) else file.stat().st_size):
        raise InputError("file must hold an image, got an empty file")
    with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as stream, _without_warnings():
        return _decode_stream(stream, least_side)


def _decode_stream(stream: BinaryIO, least_side: int | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError
    from PIL.TiffImagePlugin import TiffImageFile

    head = stream.read(HEAD_BYTES)
    require_webp_canvas(head)
    stream.seek(0)
    source = io.BytesIO(keep_pixels(stream.read())) if head.startswith(SIGNATURE) else stream
    try:
        with Image.open(source, formats=_formats_of(head)) as image:
            if isinstance(image, TiffImageFile):
                require_sound_strips(image.tag_v2, source)
            pixels = read_pixels(image, least_side)
            if image.format in ("JPEG", "MPO") and _is_filled(image, source, least_side):
                raise InputError(
                    "JPEG must be whole, got one whose pixels end early; copy or download it again"
                )
            return pixels
    except InputError:
        raise
    except UnidentifiedImageError:
        raise not_an_image(source) from None
    except Image.DecompressionBombError:
        raise InputError(f"image must have at most {MAX_PIXELS:,} pixels, got more") from None
    except (OSError, *_DECODER_ERRORS) as error:
        if getattr(error, "errno", None):
            # The disk's fault and not the file's.
            raise
        raise damaged(format_of(head) or "image", str(error)) from None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns about what it can recover from, and logs beside; for anything else it raises."""
    _silence_libtiff()
    logger = logging.getLogger("PIL.TiffImagePlugin")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to the terminal what Pillow raises anyway; Pillow has no option for it."""
    from PIL import _imaging

    library = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        # Absent where libtiff is linked into Pillow without its names.
        if hasattr(library, name):
            getattr(library, name)(None)


def _formats_of(head: bytes) -> tuple[str, ...]:
    """What Pillow may try for a file that begins so; HEIC where the extra is installed."""
    if not is_heic(head):
        return FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError:
        return FORMATS
    register_heif_opener()
    return ("HEIF",)


def _is_filled(image: Any, source: BinaryIO, least_side: int | None) -> bool:
    """Whether a decoded JPEG ended before its last pixel.

    Its decoder fills the rest with mid-grey and says nothing. More bytes before the end marker are skipped
    where all pixels are there, and change those that are not.
    """
    from PIL import Image

    corner = image.getpixel((image.width - 1, image.height - 1))
    if set(np.ravel(corner).tolist()) - {127, 128}:
        return False
    source.seek(0)
    data, marker, rest = source.read().rpartition(b"\xff\xd9")
    with Image.open(io.BytesIO(data + b"\x5a" * 1024 + marker + rest), formats=["JPEG"]) as padded:
        if least_side is not None:
            padded.draft(None, (least_side, least_side))
        try:
            return bool(padded.tobytes() != image.tobytes())
        except OSError:
            return True


def read_pixels(
    image: Any, least_side: int | None = None
) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The pixels of a PIL image, as `decode_image` gives them for a file.

    Raises:
        InputError: if it has more than `MAX_PIXELS` pixels, is transparent everywhere, or has colours or
            values that are not supported.
    """
    from PIL import Image

    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"image must have at most {MAX_PIXELS:,} pixels, got {image.width:,} x {image.height:,}"
        )
    if least_side is not None:
        image.draft(None, (least_side, least_side))
    require_memory(image)
    layout = Layout.of(image)
    image.load()
    # Pillow turns a TIFF upright as it loads it, and takes the tag away.
    upright = _UPRIGHT.get(_read_orientation(image))
    image = image.transpose(Image.Transpose[upright]) if upright else image
    return to_eight_bits(image, layout)


def _read_orientation(image: Any) -> int:
    """The EXIF orientation; 1 (upright) if the tags cannot be read, because the pixels still can."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1
