import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supcon_pipeline.core.data.decoding import decode_image, read_pixels


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


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
        ("RGBA", (200, 100, 0, 0), [255, 255, 255]),
        ("RGBA", (200, 100, 0, 255), [200, 100, 0]),
        ("RGBA", (200, 100, 0, 51), [244, 224, 204]),  # 0.2 of the colour and 0.8 of white
        ("LA", (0, 0), [255, 255, 255]),
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


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert np.abs(decode_image(encode(cyan, kind)).astype(int) - [0, 255, 255]).max() < 8


def test_a_moving_picture_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_turned_upright(pixels, orientation):
    pixels = pixels[:16]  # not square, so that its sides change places
    # How a camera held that way stores the scene, by TIFF 6.0.
    stored = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, 1), 7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
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
        (b"not an image at all", "file must be an image, got none of JPEG, "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "file must be an image, got none of JPEG, "),
    ],
)
def test_what_is_no_image_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        decode_image(content)


def test_the_pictures_of_a_telephone_give_the_first(pixels):
    frames = [Image.fromarray(pixels), Image.new("RGB", (24, 24), "blue")]
    content = encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(decode_image(content).astype(int) - pixels).mean() < 8
