"""What a file is that was taken for an image, and what to do about it."""

import struct
from typing import BinaryIO

from supcon_pipeline.core.data.tiff import describe_depth
from supcon_pipeline.core.messages import InputError

# What tells the kinds apart is within the first bytes.
HEAD_BYTES = 4096
_CONVERT = "convert it to PNG or JPEG"
_DOWNLOAD = "download the image itself"
_COPY = "copy or download it again"
# Major brands of the container that HEIC and AVIF share (ISO/IEC 23008-12, annex B).
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif")
_GENERAL_BRANDS = (b"mif1", b"msf1")
# First bytes of what `decode_image` reads, with the name that Pillow has for it.
_READ = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d%c" % (digit, space), "PPM") for digit in range(1, 7) for space in b"\n\r\t #"),
)
# First bytes of other files, what they are, and what to do.
_OTHERS = (
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS", "run git lfs pull in its repository"),
    (b"/annex/objects/", "a pointer of git-annex", "run git annex get in its repository"),
    (b"\0\x05\x16\x07", "the second part of a file of macOS", "remove it"),
    (b"\0\0\0\x0cjP  \r\n", "JPEG 2000", _CONVERT),
    (b"\xff\x4f\xff\x51", "JPEG 2000", _CONVERT),
    (b"\0\0\0\x0cJXL \r\n", "JPEG XL", _CONVERT),
    (b"\xff\x0a", "JPEG XL", _CONVERT),
    (b"8BPS", "Photoshop", _CONVERT),
    (b"gimp xcf", "GIMP", _CONVERT),
    (b"v/1\x01", "OpenEXR", _CONVERT),
    (b"#?RADIANCE", "Radiance HDR", _CONVERT),
    (b"DDS ", "DirectDraw Surface", _CONVERT),
    (b"qoif", "QOI", _CONVERT),
    (b"\0\0\x01\0", "an icon", _CONVERT),
    (b"SIMPLE  =", "FITS", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"\x89HDF\r\n", "HDF5", _CONVERT),
    (b"%PDF", "PDF", _CONVERT),
    (b"%!PS", "PostScript", _CONVERT),
    (b"PK\x03\x04", "a ZIP archive or an office document", "unpack it"),
    (b"\x1f\x8b", "gzip", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"\x1a\x45\xdf\xa3", "a video", "extract its frames"),
)


def is_heic(head: bytes) -> bool:
    """Whether a file that begins so is HEIC, which Pillow reads only with the extra `heic`."""
    if head[4:8] != b"ftyp":
        return False
    is_general = head[8:12] in _GENERAL_BRANDS and b"avif" not in _brands(head)
    return head[8:12] in _HEIC_BRANDS or is_general


def not_an_image(stream: BinaryIO) -> InputError:
    """Why Pillow does not know a file: what it is, or what is wrong with it, and what to do."""
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    name = format_of(head)
    if not name:
        kind, remedy = _other_kind(head)
        return InputError(f"file must be an image, got {kind}; {remedy}")
    reason = _reason(name, stream)
    # Words of Pillow's TIFF reader.
    if "unknown pixel mode" in reason or "samples per pixel" in reason:
        depth = describe_depth(stream)
        return InputError(f"TIFF must be grey, RGB or CMYK of a depth that is read, got {depth}; {_CONVERT}")
    return damaged(name, reason)


def damaged(name: str, reason: str) -> InputError:
    """That a file of a kind that is read cannot be, and what to do.

    Args:
        name: the name that Pillow has for the kind.
        reason: in the words of its decoder.
    """
    words = " ".join(reason.split())
    return InputError(
        f"{name.replace('HEIF', 'HEIC')} must be whole and of a usual kind, got one that cannot be decoded"
        f"{f' ({words})' if words else ''}; {_COPY}, or {_CONVERT}"
    )


def format_of(head: bytes) -> str:
    """The name that Pillow has for a format that is read, by its first bytes; empty for any other."""
    from PIL import Image

    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and b"avif" in _brands(head):
        return "AVIF"
    if is_heic(head) and "HEIF" in Image.OPEN:
        return "HEIF"
    if head.startswith(b"BM") and head[15:18] == b"\0\0\0":
        return "BMP"
    return next((name for start, name in _READ if head.startswith(start)), "")


def _brands(head: bytes) -> list[bytes]:
    """The brands of an ISO media file: what it is, then what it is compatible with."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[place : place + 4] for place in range(16, size, 4))]


def _reason(name: str, stream: BinaryIO) -> str:
    """Why Pillow does not open a file as this format, in its words; it tells nobody otherwise."""
    from PIL import Image

    stream.seek(0)
    try:
        Image.OPEN[name][0](stream, "")
    except Exception as error:
        return "its header ends early" if isinstance(error.__cause__ or error, struct.error) else str(error)
    return ""


def _other_kind(head: bytes) -> tuple[str, str]:
    """What a file is that is no image that could be read, and what to do."""
    for start, kind, remedy in _OTHERS:
        if head.startswith(start):
            return kind, remedy
    if is_heic(head):
        return "HEIC", "type pip install 'supcon_pipeline[heic]', or convert it to JPEG"
    if head[4:8] == b"ftyp":
        return "a video or raw photograph", _CONVERT
    if head[128:132] == b"DICM":
        return "DICOM", _CONVERT
    if not head.strip(b"\0"):
        return "zeros alone: it was not written to its end", _COPY
    return _text_kind(head) or ("bytes of no known kind", f"{_COPY}, or {_CONVERT}")


def _text_kind(head: bytes) -> tuple[str, str] | None:
    """What a text is, and what to do; none where it is no text."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<") and (b"<html" in start or b"<!doctype html" in start):
        return "a web page (HTML)", f"an error page may have been saved in its place: {_DOWNLOAD}"
    if b"<svg" in start:
        return "SVG", _CONVERT
    text = head.decode("utf-8", "ignore")
    num_dropped = len(head) - len(text.encode())
    words = " ".join(text[:60].split())
    # A character may be cut at the end.
    if num_dropped > 3 * (len(head) == HEAD_BYTES) or not words.isprintable():
        return None
    return f"text that begins {words!r}", _DOWNLOAD
