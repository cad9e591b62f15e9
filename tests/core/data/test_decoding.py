import io
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from supcon_pipeline.core.data.decoding import decode_image, read_pixels
from supcon_pipeline.core.data.packing import Packing


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(width: int, depth: int, colour: int, row: bytes, *chunks: bytes) -> bytes:
    """A PNG of one row, bit by bit."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels


def make_tiff(bits: int, values: bytes, bands: int = 1, photometric: int = 1, number: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of two pixels, bit by bit (TIFF 6.0)."""
    places = [(258, bits), (339, number)]
    tags = {256: 2, 257: 1, 259: 1, 262: photometric, 273: 0, 277: bands, 278: 1, 279: len(values), 284: 1}
    lists = {tag: struct.pack(f"<{bands}H", *[value] * bands) for tag, value in places}
    if bands > 3:
        lists[338] = bytes(2 * (bands - 3))
    start = 8 + 2 + 12 * (len(tags) + len(lists)) + 4
    tags[273] = start + sum(map(len, lists.values()))
    entries, behind = [], b""
    for tag, value in tags.items():
        entries.append(struct.pack("<HHII", tag, 4, 1, value))
    for tag, value in lists.items():
        is_short = len(value) <= 4
        place = value.ljust(4, b"\0") if is_short else struct.pack("<I", start + len(behind))
        entries.append(struct.pack("<HHI", tag, 3, len(value) // 2) + place)
        behind += b"" if is_short else value
    tags_of = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    offset = start + len(behind) - tags[273]
    return b"II*\0" + struct.pack("<I", 8) + tags_of + behind + bytes(-offset) + values


@pytest.fixture
def pixels():
    """Colours that change slowly, so that a lossy format keeps them."""
    ramp = np.linspace(0, 255, 24)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 128), axis=2).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_an_exact_format_gives_the_pixels_that_were_written(pixels, kind):
    assert np.array_equal(decode_image(encode(Image.fromarray(pixels), kind)), pixels)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("GIF", {})]
)
def test_a_lossy_format_gives_nearly_those(pixels, kind, options):
    decoded = decode_image(encode(Image.fromarray(pixels), kind, **options))
    assert np.abs(decoded.astype(int) - pixels).mean() < 8


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path, pixels):
    path = tmp_path / "image.png"
    path.write_bytes(encode(Image.fromarray(pixels)))
    assert np.array_equal(decode_image(path), decode_image(path.read_bytes()))


def test_grayscale_keeps_one_channel(pixels):
    assert np.array_equal(decode_image(encode(Image.fromarray(pixels[..., 0]))), pixels[..., 0])


def test_a_palette_becomes_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert decode_image(encode(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    assert decode_image(encode(image)).tolist() == [[255, 0]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert decode_image(encode(Image.fromarray(deep), kind)).tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 77, 255], [0, 77, 255]), ([0, 257, 65535], [0, 1, 255])]
)
def test_whole_numbers_of_32_bits_are_those_of_8_or_of_16(values, expected):
    image = Image.fromarray(np.array([values], np.int32))
    assert decode_image(encode(image, "TIFF")).tolist() == [expected]
    assert read_pixels(image).tolist() == [expected]


def test_a_dark_image_of_16_bits_stays_dark():
    dark = np.array([[0, 100, 255]], np.uint16)
    for content in (
        encode(Image.fromarray(dark)),
        encode(Image.fromarray(dark), "TIFF"),
        b"P5 3 1 65535 " + dark.astype(">u2").tobytes(),
    ):
        assert decode_image(content).tolist() == [[0, 0, 1]]


def test_fractions_are_scaled_to_the_whole_range():
    image = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert decode_image(encode(image, "TIFF")).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("values", [[-1.0, 0.5], [0.0, 256.0], [float("nan"), 1.0]])
def test_numbers_that_are_no_brightness_are_refused(values):
    image = Image.fromarray(np.array([values], np.float32))
    with pytest.raises(ValueError, match="pixels must be between 0 and 255, got"):
        decode_image(encode(image, "TIFF"))


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (200, 100, 0, 255), [200, 100, 0]),
        ("RGBA", (200, 100, 0, 51), [244, 224, 204]),  # 0.2 of the colour and 0.8 of white
        ("LA", (0, 51), [204, 204, 204]),
        ("LA", (7, 255), [7, 7, 7]),
    ],
)
def test_what_is_transparent_lies_on_white(mode, color, expected):
    assert decode_image(encode(Image.new(mode, (1, 1), color)))[0, 0].tolist() == expected


def test_a_transparent_colour_of_a_palette_lies_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert decode_image(encode(image, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "expected"),
    [
        (1, b"\xa0", 1, [255, 0, 255, 0]),
        (1, b"\xa0", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x01\x2f", 2, [0, 17, 255, 255]),
        (8, b"\x00\x01\x02\x03", 2, [0, 1, 255, 3]),
        (16, struct.pack(">4H", 1000, 1001, 40000, 65535), 1000, [255, 4, 156, 255]),
    ],
)
def test_a_transparent_grey_of_a_png_of_any_depth_lies_on_white(depth, row, transparent, expected):
    content = make_png(4, depth, 0, row, chunk(b"tRNS", struct.pack(">H", transparent)))
    assert decode_image(content).tolist() == [expected]


@pytest.mark.parametrize(("depth", "row"), [(1, b"\x40"), (2, b"\x10"), (4, b"\x01"), (8, b"\x00\x01")])
def test_transparent_colours_of_a_palette_of_any_depth_lie_on_white(depth, row):
    colours = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 0])) + chunk(b"tRNS", bytes([0, 51]))
    assert decode_image(make_png(2, depth, 3, row, colours)).tolist() == [[[255] * 3, [244, 224, 204]]]


def test_a_transparent_colour_of_16_bits_is_refused_and_of_8_taken():
    eight = make_png(2, 8, 2, bytes([1, 2, 3, 1, 2, 4]), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert decode_image(eight).tolist() == [[[255, 255, 255], [1, 2, 4]]]
    deep = make_png(1, 16, 2, bytes(6), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    with pytest.raises(ValueError, match="a transparent colour must be of 8 bits, got one of 16; save"):
        decode_image(deep)


@pytest.mark.parametrize(
    "content",
    [
        encode(Image.new("RGBA", (4, 4), (200, 100, 0, 0))),
        encode(Image.new("LA", (4, 4), (9, 0)), "TIFF"),
        encode(Image.new("RGBA", (4, 4), (200, 100, 0, 0)), "WEBP", lossless=True),
        encode(Image.new("P", (4, 4), 0), "GIF", transparency=0),
        encode(Image.new("L", (4, 4), 7), transparency=7),
        encode(Image.new("1", (4, 4), 0), transparency=0),
    ],
)
def test_what_is_transparent_everywhere_is_refused(content):
    with pytest.raises(ValueError, match="must show something, got one that is transparent everywhere; rem"):
        decode_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert np.abs(decode_image(encode(cyan, kind)).astype(int) - [0, 255, 255]).max() < 8


def test_a_moving_picture_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content)[0, 0].tolist() == [255, 0, 0]


EXACT = [
    ("PNG", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ("JPEG", {"quality": 95, "subsampling": 0}),
    *(("TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), EXACT)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_turned_upright_once(pixels, orientation, kind, options):
    pixels = pixels[:16]  # not square, so that its sides change places
    # How a camera held that way stores the scene, by TIFF 6.0.
    stored = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, 1), 7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    decoded = decode_image(encode(image, kind, exif=exif, **options))
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).max() <= (8 if kind in ("JPEG", "AVIF") else 0)


def test_an_orientation_behind_the_pixels_of_a_png_is_found(pixels):
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encode(Image.fromarray(pixels[::-1, ::-1].copy()))
    content = content[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[-12:]
    assert np.array_equal(decode_image(content), pixels)


def test_exif_that_cannot_be_read_costs_no_image(pixels):
    content = encode(Image.fromarray(pixels), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode_image(content).shape == pixels.shape


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_looks_the_same():
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    content = encode(Image.fromarray(np.tile(ramp, (400, 1))), "JPEG", quality=95)
    small = decode_image(content, least_side=50)
    assert small.shape == (50, 50)
    assert np.abs(small.astype(int) - ramp.reshape(50, 8).mean(axis=1)).max() <= 3
    assert decode_image(content, least_side=300).shape == (400, 400)


def test_the_smallest_image_is_taken():
    assert decode_image(encode(Image.new("L", (1, 1), 9))).tolist() == [[9]]


def test_the_largest_image_is_taken():
    content = encode(Image.new("1", (10_000, 10_000)))
    assert decode_image(content).shape == (10_000, 10_000)


@pytest.mark.parametrize("size", [(2**14, 2**13 + 1), (20_000, 20_000)])
def test_a_small_file_of_very_many_pixels_is_refused_before_it_unfolds(size):
    # Beyond our limit, and beyond that at which Pillow itself refuses.
    content = encode(Image.new("1", size))
    assert len(content) < 100_000
    with pytest.raises(ValueError, match="image must have at most 134,217,728 pixels, got"):
        decode_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_that_is_cut_short_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), kind)
    with pytest.raises((ValueError, OSError)):
        decode_image(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file must hold an image, got an empty file"),
        (b"not an image at all", "got text that begins 'not an image at all'; download the image itself"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "file must be an image, got PostScript; "),
    ],
)
def test_what_is_no_image_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        decode_image(content)


def test_the_pictures_of_a_telephone_give_the_first(pixels):
    frames = [Image.fromarray(pixels), Image.new("RGB", (24, 24), "blue")]
    content = encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(decode_image(content).astype(int) - pixels).mean() < 8


def test_a_16_bit_tiff_whose_white_is_zero_is_inverted():
    assert decode_image(make_tiff(16, struct.pack("<2H", 0, 65535), photometric=0)).tolist() == [[255, 0]]
    assert decode_image(make_tiff(8, b"\x00\xff", photometric=0)).tolist() == [[255, 0]]


def test_12_bits_use_the_whole_range():
    assert decode_image(make_tiff(12, b"\x00\x0f\xff")).tolist() == [[0, 255]]


def test_bands_beside_the_colours_are_left_out():
    assert decode_image(make_tiff(8, bytes(range(10)), bands=5, photometric=2)).tolist() == [
        [[0, 1, 2], [5, 6, 7]]
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            make_tiff(32, bytes(24), 3, 2, 3),
            "got 3 bands of 32 floating-point bits, .*; convert it to",
        ),
        (
            make_tiff(16, bytes(20), 5, 2),
            "TIFF must be grey, .* is read, got 5 bands of 16 bits",
        ),
        (make_tiff(64, bytes(16), 1, 1, 3), "got 1 band of 64 floating-point bits"),
        (make_tiff(8, b"\xff\x01", number=2), "must be at least 0, got signed ones of 8 bits; convert"),
    ],
)
def test_a_tiff_of_a_depth_that_cannot_be_read_is_refused_by_its_depth(content, message):
    with pytest.raises(ValueError, match=message):
        decode_image(content)


@pytest.mark.parametrize("position", [45, -30, -18, 20])
def test_a_flipped_bit_of_a_png_is_refused_by_name(pixels, position):
    content = bytearray(encode(Image.fromarray(pixels)))
    content[position] ^= 4
    with pytest.raises(ValueError, match=r"PNG must have the checksums .*: the file is damaged; copy"):
        decode_image(bytes(content))


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_deflate"])
def test_a_damaged_byte_of_a_compressed_tiff_is_refused_by_name(compression, rng):
    noise = Image.fromarray(rng.integers(0, 200, (48, 64, 3), dtype=np.uint8))
    content = encode(noise, "TIFF", compression=compression)
    with Image.open(io.BytesIO(content)) as image:
        (start,), (count,) = image.tag_v2[273], image.tag_v2[279]
    for place in range(start + 9, start + count, count // 7):
        changed = content[:place] + bytes(9) + content[place + 9 :]
        with pytest.raises(ValueError, match="TIFF must have the checksums it was written with"):
            decode_image(changed)


@pytest.mark.parametrize("cut", [20, 60, -13, -5, -1])
def test_a_png_that_ends_early_is_refused_by_name(pixels, cut):
    with pytest.raises(ValueError, match=r"PNG must be whole, got one that ends early.*; copy or download"):
        decode_image(encode(Image.fromarray(pixels))[:cut])


def test_a_png_with_an_unknown_critical_chunk_is_refused():
    content = make_png(1, 8, 0, b"\7", chunk(b"CgBI", bytes(4)))
    with pytest.raises(ValueError, match="PNG must consist of known chunks, got CgBI"):
        decode_image(content)


@pytest.mark.parametrize("name", ["scene", "XML:com.adobe.xmp"])
def test_long_texts_and_profiles_of_a_png_cost_no_image(pixels, name):
    for is_international in (False, True):
        words = PngImagePlugin.PngInfo()
        add = words.add_itxt if is_international else words.add_text
        add(name, "x" * 3_000_000, zip=True)
        content = encode(Image.fromarray(pixels), pnginfo=words, icc_profile=bytes(3_000_000))
        assert np.array_equal(decode_image(content), pixels)


@pytest.mark.parametrize("is_progressive", [False, True])
@pytest.mark.parametrize("least_side", [None, 24])
def test_a_jpeg_never_has_grey_in_place_of_what_is_cut_off(is_progressive, least_side):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), "JPEG", progressive=is_progressive)
    scan = content.rfind(b"\xff\xda")
    cuts = (len(content) * 2 // 3,) if is_progressive else (scan + 99, len(content) // 2, len(content) - 300)
    for cut in cuts:
        for tail in (b"", b"\xff\xd9") if not is_progressive else (b"",):
            with pytest.raises(ValueError, match="JPEG must be whole"):
                decode_image(content[:cut] + tail, least_side)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_that_is_grey_in_its_corner_is_taken(mode):
    content = encode(Image.new(mode, (40, 24), (128,) * len(mode)), "JPEG")
    for tail in (b"", b"\xff\xd9 and more"):
        assert (decode_image(content + tail) == 128).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64), "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(64), "AVIF must be whole .*; copy or download"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "got a video or raw photograph; convert it"),
        (
            b"\n<!DOCTYPE html><html><title>403 Forbidden",
            r"got a web page \(HTML\); .* download the image",
        ),
        (b"<?xml version='1.0'?><svg>", "got SVG; convert it"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
            "a pointer of Git LFS; run git lfs pull",
        ),
        (b"/annex/objects/SHA256E-s1--a.jpg\n", "got a pointer of git-annex; run git annex get"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "got the second part of a file of macOS; remove it"),
        (bytes(999), "got zeros alone: it was not written to its end; copy"),
        (b"\xff\x0a\1\2", "got JPEG XL; convert it"),
        (b"a\x1b[31mred", "got bytes of no known kind;"),
        (b"BMW 3, red", "got text that begins 'BMW 3, red'"),
        (b"GIF89a", r"GIF must be whole .* \(its header ends early\)"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG must be whole"),
    ],
)
def test_a_file_that_is_no_image_is_called_what_it_is(content, message):
    with pytest.raises(ValueError, match=message) as error:
        decode_image(content)
    assert error.value.__cause__ is None
    assert "\n" not in str(error.value)


def test_avif_gives_nearly_the_pixels_that_were_written(pixels):
    decoded = decode_image(encode(Image.fromarray(pixels), "AVIF", quality=95))
    assert np.abs(decoded.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("name", [b"mdat", b"iloc", b"av01"])
def test_a_damaged_part_of_an_avif_is_one_line(name, pixels):
    content = encode(Image.fromarray(pixels), "AVIF")
    head, part, tail = content.partition(name)
    damaged = head + part + bytes(len(tail)) if name == b"mdat" else head + b"none" + tail
    with pytest.raises(ValueError, match=r"AVIF must be whole .*; copy or download it again"):
        decode_image(damaged)


def test_heic_is_read_upright_where_its_library_is(pixels):
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encode(Image.fromarray(pixels[::-1, ::-1].copy()), "HEIF", quality=95, exif=exif.tobytes())
    assert np.abs(decode_image(content).astype(int) - pixels).mean() < 5
    with pytest.raises(ValueError, match="HEIC must be whole"):
        decode_image(content[: len(content) // 2])


MUTATED = [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("GIF", {}), ("BMP", {}),
    ("PPM", {}), ("AVIF", {"speed": 10}),
    *(("TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
]  # fmt: skip


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut off, added, taken out or zeroed."""
    place, length = rng.integers(len(content)), int(rng.integers(1, 64))
    head, part, tail = content[:place], content[place : place + length], content[place + length :]
    flipped = bytearray(content)
    flipped[place] ^= 1 << rng.integers(8)
    noise = rng.bytes(length)
    changed = [flipped, head, head + tail, head + bytes(len(part)) + tail, head + noise + part + tail]
    return bytes([*changed, content + noise][rng.integers(6)])


@pytest.mark.parametrize(("kind", "options"), MUTATED)
def test_a_damaged_file_is_one_line_or_pixels_and_nothing_is_said_beside(kind, options, pixels, rng, capfd):
    content = encode(Image.fromarray(pixels), kind, **options)
    for _ in range(6):
        result = Packing(24, 3, "pad").pack(mutate(content, rng))
        if isinstance(result, str):
            assert " must " in result
        else:
            assert kind != "PNG" or np.array_equal(result, pixels)
    assert capfd.readouterr() == ("", "")


def test_the_log_of_a_decoder_is_quiet_only_while_it_decodes(caplog):
    with pytest.raises(ValueError, match="got 9 bands of 8 bits"):
        decode_image(make_tiff(8, bytes(18), bands=9, photometric=2))
    assert not caplog.records
    assert not logging.getLogger("PIL.TiffImagePlugin").disabled


def test_a_file_that_the_disk_does_not_give_keeps_its_error(tmp_path: Path):
    with pytest.raises(IsADirectoryError):
        decode_image(tmp_path)
    with pytest.raises(FileNotFoundError):
        decode_image(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="got an empty file"):
        decode_image(tmp_path / "pipe.png")
