import numpy as np
import pytest
from PIL import Image

from supcon_pipeline.core.images import pack_image
from supcon_pipeline.core.new_images import (
    decode_image,
    find_images,
    list_images,
    pack_new_image,
    pack_readable,
)


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_a_path_a_picture_and_an_array_are_packed_alike(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = pack_image(pixels, 8, 3)
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        assert np.array_equal(pack_new_image(image, 8, 3), expected)


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path, pixels):
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode_image(tmp_path / "a.png"), np.rot90(pixels, k=-1))


def test_what_is_transparent_becomes_white_and_grey_stays_grey(tmp_path):
    Image.new("RGBA", (2, 3), (9, 9, 9, 0)).save(tmp_path / "a.png")
    Image.new("L", (2, 3), 77).save(tmp_path / "b.png")
    assert (decode_image(tmp_path / "a.png") == 255).all()
    assert decode_image(tmp_path / "b.png").shape == (3, 2)


def test_one_image_or_several_are_a_list(pixels):
    assert (
        len(list_images("a.png"))
        == len(list_images(pixels))
        == len(list_images(Image.fromarray(pixels)))
        == 1
    )
    assert len(list_images(np.stack([pixels, pixels]))) == len(list_images(("a.png", pixels))) == 2


@pytest.mark.parametrize("image", [3, None, Image.new("I;16", (2, 2)), np.zeros((2, 2))])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="image must"):
        pack_new_image(image, 8, 3)


def test_images_are_found_below_the_folder_in_order_and_hidden_ones_are_not(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "a.webp", ".hidden/3.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.webp", "b/1.jpg", "b/2.PNG"]


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"inference.path must be a folder of images, got"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"inference.path must hold images"):
        find_images(tmp_path)


def test_images_that_cannot_be_read_are_told_apart_with_the_reason(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    images, readable, unreadable = pack_readable([tmp_path / "bad.png", tmp_path / "good.png"], 8, 3)
    assert images.shape == (1, 8, 8, 3)
    assert readable == [1]
    assert unreadable[0][0] == 0
    assert "cannot identify image file" in unreadable[0][1]


def test_a_folder_without_one_readable_image_is_refused(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"got 1 that cannot; the first: .*bad.png: cannot identify"):
        pack_readable([tmp_path / "bad.png"], 8, 3)
