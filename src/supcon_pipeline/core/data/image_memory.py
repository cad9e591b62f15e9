"""Images that would take more memory to decode than a worker should have."""

from typing import Any

from supcon_pipeline.core.messages import InputError

# Of one worker, for one image. A file of 200 KB can unfold to gigabytes.
MAX_BYTES = 2**30
# Bytes per pixel at the peak, measured with Pillow 12. A WebP is decoded into two canvases, and what is
# transparent is blended with white.
_BYTES_OF_MODE = {
    "1": 4,
    "L": 4,
    "P": 11,
    "I;16": 12,
    "RGB": 14,
    "CMYK": 14,
    "YCbCr": 14,
    "F": 17,
    "RGBA": 22,
}
_MOST_BYTES = 25
_WEBP_BYTES = 30
# The size of a tile of a TIFF, which is decoded whole however small the image is (TIFF 6.0, section 15).
_TILE_WIDTH, _TILE_LENGTH = 322, 323


def require_webp_canvas(head: bytes) -> None:
    """Make sure that a WebP is small enough before it is opened, which takes the memory already.

    Args:
        head: the first 30 bytes of a file of any kind, or more.

    Raises:
        InputError: where it is not.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        _require_pixels("a WebP", *_webp_size(head), _WEBP_BYTES)


def require_memory(image: Any) -> None:
    """Make sure that an opened PIL image is small enough to be decoded.

    Raises:
        InputError: where it is not.
    """
    is_transparent = "transparency" in image.info
    mode = image.mode.removesuffix("B").removesuffix("L") if image.mode.startswith("I;16") else image.mode
    cost = _BYTES_OF_MODE["RGBA"] if is_transparent else _BYTES_OF_MODE.get(mode, _MOST_BYTES)
    kind = f"a {image.format or 'picture'} in mode {image.mode}"
    _require_pixels(kind, image.width, image.height, cost)
    tags = getattr(image, "tag_v2", {})
    tile = [tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
    if all(isinstance(side, int) for side in tile):
        _require_pixels("a tile of a TIFF", tile[0], tile[1], cost)


def _require_pixels(kind: str, width: int, height: int, bytes_per_pixel: int) -> None:
    limit = MAX_BYTES // bytes_per_pixel
    if width * height > limit:
        raise InputError(
            f"{kind} must have at most {limit:,} pixels to fit in memory, got {width:,} x {height:,}; "
            "make it smaller"
        )


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height from the first 30 bytes (RFC 9649, section 2)."""
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
