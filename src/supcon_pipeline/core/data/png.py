"""PNG files: their checksums, and the chunks that pixels depend on."""

import struct
import zlib
from collections.abc import Iterator

from supcon_pipeline.core.messages import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Texts in which programs keep the orientation instead of in eXIf.
_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"exif\0")
# Pillow refuses longer texts, and the orientation needs no more.
_MAX_TEXT = 2**19


def keep_pixels(content: bytes) -> bytes:
    """A PNG file without the chunks that pixels do not depend on: texts, colour profiles, further frames.

    Pillow compares no checksum of pixels, and refuses a file for a text that is long. All checksums are
    compared here: a chunk whose name is damaged would be left out.

    Raises:
        InputError: where a checksum differs, the file ends early, or a chunk is needed that nobody knows.
    """
    kept = [SIGNATURE]
    view = memoryview(content)
    for kind, start, end in _chunks(content):
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(view[start - 4 : end]) != checksum:
            raise InputError(
                f"PNG must have the checksums it was written with, got another in {_name(kind)}: "
                "the file is damaged; copy or download it again"
            )
        if _is_needed(kind, view[start:end]):
            kept.append(content[start - 8 : end + 4])
    return b"".join(kept)


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk to the last, and where its data start and end."""
    kind, start, end = b"", 0, len(SIGNATURE) - 4
    while kind != b"IEND":
        start = end + 12
        if start > len(content):
            raise _cut_short(kind)
        length, kind = struct.unpack_from(">I4s", content, start - 8)
        end = start + length
        if end + 4 > len(content):
            raise _cut_short(kind)
        yield kind, start, end


def _is_needed(kind: bytes, data: memoryview) -> bool:
    """Whether pixels depend on a chunk.

    Raises:
        InputError: where it is critical, by the case of its first letter, and unknown.
    """
    if kind in _TEXTS:
        return data[:32].tobytes().startswith(_ORIENTATION_TEXTS) and _is_short(kind, data)
    if not kind[0] & 0x20 and kind not in _CRITICAL:
        raise InputError(
            f"PNG must consist of known chunks, got {_name(kind)}: the file is damaged or of another kind; "
            "convert it to an ordinary PNG"
        )
    return kind in (*_CRITICAL, b"tRNS", b"eXIf")


def _is_short(kind: bytes, data: memoryview) -> bool:
    """Whether a text has at most `_MAX_TEXT` bytes, also when it is decompressed."""
    if len(data) > _MAX_TEXT:
        return False
    _, _, rest = data.tobytes().partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return True
    compressed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    inflating = zlib.decompressobj()
    try:
        inflating.decompress(compressed, _MAX_TEXT)
    except zlib.error:
        return False
    return not inflating.unconsumed_tail


def _cut_short(kind: bytes) -> InputError:
    where = f" in or after {_name(kind)}" if kind else ""
    return InputError(
        f"PNG must be whole, got one that ends early{where}: the file is cut short or damaged; "
        "copy or download it again"
    )


def _name(kind: bytes) -> str:
    return kind.decode("ascii") if kind.isalpha() else repr(kind)
