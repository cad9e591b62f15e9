import io

import numpy as np
import pytest
from PIL import Image

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.pixels import pack_image
from supcon_pipeline.core.inference.new_images import (
    held_out_images,
    list_images,
    pack_new_image,
    pack_readable,
    read_images,
)
from supcon_pipeline.core.named_tensors import NamedTensors

PADDED = Packing(8, 3, "pad")


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_a_path_a_picture_and_an_array_are_packed_alike(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = pack_image(pixels, 8, 3)
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        assert np.array_equal(pack_new_image(image, PADDED), expected)


def test_the_content_of_a_file_and_the_open_file_are_one_image(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content, expected = (tmp_path / "a.png").read_bytes(), pack_image(pixels, 8, 3)
    with (tmp_path / "a.png").open("rb") as file:
        for image in (content, io.BytesIO(content), file):
            (listed,) = list_images(image)
            assert np.array_equal(pack_new_image(listed, PADDED), expected)


def test_an_array_with_transparency_lies_on_white_as_its_picture_does(rng):
    pixels = rng.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    expected = pack_new_image(Image.fromarray(pixels), PADDED)
    assert np.array_equal(pack_new_image(pixels, PADDED), expected)
    with pytest.raises(ValueError, match="must show something, got one that is transparent everywhere"):
        pack_new_image(np.zeros((2, 2, 4), np.uint8), PADDED)


@pytest.mark.parametrize("crop", ["pad", "crop", "stretch"])
def test_new_images_become_square_as_those_of_training_did(tmp_path, pixels, crop):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    packing = Packing(8, 3, crop)
    assert np.array_equal(pack_new_image(tmp_path / "a.png", packing), packing.pack(tmp_path / "a.png"))
    assert np.array_equal(pack_new_image(pixels, packing), packing.pack(pixels))


def test_a_picture_taken_sideways_is_turned_upright(pixels):
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = 6
    upright = np.ascontiguousarray(np.rot90(pixels, k=-1))
    assert np.array_equal(pack_new_image(picture, PADDED), pack_image(upright, 8, 3))


def test_one_image_or_several_are_a_list(pixels):
    assert (
        len(list_images("a.png"))
        == len(list_images(pixels))
        == len(list_images(Image.fromarray(pixels)))
        == 1
    )
    assert len(list_images(np.stack([pixels, pixels]))) == len(list_images(("a.png", pixels))) == 2


@pytest.mark.parametrize("image", [3, None, np.zeros((2, 2))])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="image must"):
        pack_new_image(image, PADDED)


def source(folder, names, splits=None):
    """A source of these files of a folder."""
    paths = [folder / name for name in names]
    labels = np.zeros(len(paths), dtype=np.int64)
    return RawImages(paths, labels, ["any"], list(names), "a folder", splits)


@pytest.mark.parametrize("crop", ["pad", "stretch"])
def test_images_are_read_as_the_encoder_says_and_others_listed_with_the_reason(tmp_path, pixels, crop):
    Image.fromarray(pixels).save(tmp_path / "b.png")
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(b"no image")
    encoder = NamedTensors({}, {"model": {"image_size": 8, "mean": [0.5]}, "crop": crop})
    images, table, unreadable = read_images(source(tmp_path, ["a.png", "b.png", "c.png"]), encoder, 0)
    assert np.array_equal(images, pack_image(pixels, 8, 1, crop)[None])
    assert table.to_dict("list") == {"image": ["b.png"]}
    assert unreadable["image"].tolist() == ["a.png", "c.png"]
    assert unreadable["reason"].str.contains("file must be an image").all()


def test_a_source_without_one_readable_image_is_refused(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    encoder = NamedTensors({}, {"model": {"image_size": 8, "mean": [0.5]}, "crop": "pad"})
    message = "a folder must hold an image that can be read, got 1 that cannot be; the first is bad.png: "
    with pytest.raises(ValueError, match=message):
        read_images(source(tmp_path, ["bad.png"]), encoder, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_many_images_are_packed_as_one_by_one_in_order_by_any_number_of_processes(tmp_path, rng, num_workers):
    paths = [tmp_path / f"{index}.png" for index in range(70)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(path)
    for index in (0, 68):
        paths[index].write_bytes(b"no image")
    images, unreadable = pack_readable(paths, PADDED, num_workers)
    readable = [path for index, path in enumerate(paths) if index not in (0, 68)]
    assert list(unreadable) == [0, 68]
    assert np.array_equal(images, np.stack([pack_new_image(path, PADDED) for path in readable]))


def test_the_test_split_of_a_source_is_taken_alone_and_all_of_one_without_it(tmp_path):
    names = ["a.png", "b.png", "c.png", "d.png"]
    held_out = held_out_images(source(tmp_path, names, ["test", "train", "validation", "test"]))
    assert list(held_out.ids) == ["a.png", "d.png"]
    assert [held_out.images[row] for row in range(len(held_out.images))] == [
        tmp_path / "a.png",
        tmp_path / "d.png",
    ]
    for splits in (None, ["train", "train", "validation", "train"]):
        assert list(held_out_images(source(tmp_path, names, splits)).ids) == names
