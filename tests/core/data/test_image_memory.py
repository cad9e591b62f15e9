import io

import pytest
from PIL import Image
from tests.core.data.packings import PACKING

from supcon_pipeline.core.data import image_memory
from supcon_pipeline.core.data.decoding import decode_image
from supcon_pipeline.core.data.image_memory import require_memory, require_webp_canvas


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def header(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\xff\xff\xff\x00WEBP" + kind + bytes(4) + body


WIDE, HIGH = 16383, 8192
BOMBS = {
    "extended": header(
        b"VP8X", bytes(4) + (WIDE - 1).to_bytes(3, "little") + (HIGH - 1).to_bytes(3, "little")
    ),
    "lossless": header(b"VP8L", b"\x2f" + (WIDE - 1 | (HIGH - 1) << 14).to_bytes(4, "little")),
    "lossy": header(b"VP8 ", bytes(6) + WIDE.to_bytes(2, "little") + HIGH.to_bytes(2, "little")),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_webp_that_unfolds_to_gigabytes_is_refused_before_it_is_opened(kind, tmp_path):
    path = tmp_path / "bomb.webp"
    path.write_bytes(BOMBS[kind])
    for file in (path, BOMBS[kind]):
        with pytest.raises(ValueError, match=r"a WebP must have at most 35,791,394 .*, got 16,383 x 8,192;"):
            decode_image(file)
    assert "got 16,383 x 8,192" in PACKING.pack(path)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}])
def test_the_size_of_a_webp_is_that_of_its_header(options, monkeypatch):
    content = encode(Image.new("RGB", (7, 5)), "WEBP", **options)
    require_webp_canvas(content)
    monkeypatch.setattr(image_memory, "MAX_BYTES", 30 * 34)
    with pytest.raises(ValueError, match=r"at most 34 pixels .* got 7 x 5"):
        require_webp_canvas(content)


@pytest.mark.parametrize(
    ("kind", "mode", "limit"),
    [
        ("PNG", "RGB", 76_695_844),
        ("PNG", "RGBA", 48_806_446),
        ("PNG", "I;16", 89_478_485),
        ("TIFF", "I", 42_949_672),
        ("TIFF", "CMYK", 76_695_844),
        ("GIF", "P", 97_612_893),
        ("BMP", "L", 268_435_456),
    ],
)
def test_an_image_may_have_fewer_pixels_the_more_memory_each_takes(kind, mode, limit, monkeypatch):
    content = encode(Image.new("L", (100, 100), 9).convert(mode), kind)
    assert decode_image(content).shape[:2] == (100, 100)
    monkeypatch.setattr(image_memory, "MAX_BYTES", 2**30 // limit * 9_999)
    with pytest.raises(ValueError, match=rf"a {kind} in mode {mode} must have at most 9,999 .* 100 x 100;"):
        decode_image(content)


def test_a_large_jpeg_is_measured_by_what_is_decoded_of_it(monkeypatch):
    monkeypatch.setattr(image_memory, "MAX_BYTES", 14 * 10_000)
    content = encode(Image.new("RGB", (800, 800)), "JPEG")
    assert decode_image(content, least_side=100).shape == (100, 100, 3)
    with pytest.raises(ValueError, match="a JPEG in mode RGB must have at most 10,000 pixels"):
        decode_image(content)


def test_a_tile_that_is_larger_than_its_image_counts():
    image = Image.open(io.BytesIO(encode(Image.new("RGB", (8, 8)), "TIFF")))
    image.tag_v2[322] = image.tag_v2[323] = 2**16
    with pytest.raises(ValueError, match=r"a tile of a TIFF must have .*, got 65,536 x 65,536"):
        require_memory(image)
