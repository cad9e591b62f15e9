"""TIFF files: their layout in words, and the checksums of their pixels."""

import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

from supcon_pipeline.core.messages import InputError

# Tags of TIFF 6.0, and the two numbers of its compression by zlib.
_COMPRESSION, _DEFLATE = 259, (8, 32946)
_OFFSETS, _COUNTS = (273, 324), (279, 325)
# Bytes decompressed at a time.
_STEP = 2**20


def require_sound_strips(tags: Mapping[int, Any], stream: BinaryIO) -> None:
    """Refuse pixels whose checksums differ, where the compression has any: Pillow takes many of them.

    Args:
        tags: those of the first picture.
        stream: the file; any place.

    Raises:
        InputError: where a strip or tile is damaged.
    """
    if tags.get(_COMPRESSION) not in _DEFLATE:
        return
    offsets, counts = (next((tags[tag] for tag in pair if tag in tags), ()) for pair in (_OFFSETS, _COUNTS))
    for offset, count in zip(offsets, counts, strict=False):
        stream.seek(offset)
        if not _is_sound(stream.read(count)):
            raise InputError(
                "TIFF must have the checksums it was written with, got others: "
                "the file is damaged; copy or download it again"
            )


def _is_sound(compressed: bytes) -> bool:
    """Whether bytes of zlib end as they should; what they decompress to is not kept."""
    inflating = zlib.decompressobj()
    try:
        while compressed and not inflating.eof:
            inflating.decompress(compressed, _STEP)
            compressed = inflating.unconsumed_tail
    except zlib.error:
        return False
    return inflating.eof


def describe_depth(stream: BinaryIO) -> str:
    """Bands and depth of a TIFF, in words."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    stream.seek(0)
    head = stream.read(16)
    tags = ImageFileDirectory_v2(head if b"+" in head[:4] else head[:8])
    stream.seek(tags.next)
    tags.load(stream)
    bands, bits, kinds = tags.get(277, 1), tags.get(258, (1,)), tags.get(339, (1,))
    kind = {2: "signed ", 3: "floating-point "}.get(kinds[0], "")
    depth = f"{bands} band{'s' * (bands != 1)} of {max(bits)} {kind}bits"
    return f"{depth}, photometric interpretation {tags.get(262)}"
