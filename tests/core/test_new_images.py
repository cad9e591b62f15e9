import io

import numpy as np
import pytest
from PIL import Image

from supcon_pipeline.core.images import pack_image
from supcon_pipeline.core.new_images import (
    find_images,
    list_images,
    pack_new_image,
    pack_readable,
    read_folder,
)
from supcon_pipeline.core.packing import Packing
from supcon_pipeline.core.tensors import NamedTensors
from supcon_pipeline.datasets.image_folder import ImageFolderDataset

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
    assert pack_new_image(np.zeros((2, 2, 4), np.uint8), PADDED).min() == 255


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


def test_images_are_found_below_the_folder_in_order_and_hidden_ones_are_not(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "c.webp", ".hidden/3.png", "__MACOSX/4.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["c.webp", "b/1.jpg", "b/2.PNG"]


def test_the_images_are_those_that_a_folder_to_train_on_would_give(tmp_path):
    for name in ("cat/a.jfif", "cat/b.JPE", "cat/c.ppm", "cat/deep/d.png", "elsewhere/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "cat/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "cat/loop").symlink_to(tmp_path / "cat")
    (tmp_path / "cat/gone.png").symlink_to(tmp_path / "nowhere")
    trained = ImageFolderDataset(str(tmp_path)).load()
    found = find_images(tmp_path / "cat")
    assert found == [path for path, label in zip(trained.images, trained.labels, strict=True) if label == 0]
    assert [path.name for path in found] == ["a.jfif", "b.JPE", "c.ppm", "gone.png", "d.png", "e.png"]


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"inference.path must be a folder of images, got"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"inference.path must hold images"):
        find_images(tmp_path)


def test_images_that_cannot_be_read_are_told_apart_with_the_reason(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    images, readable, unreadable = pack_readable([tmp_path / "bad.png", tmp_path / "good.png"], PADDED)
    assert images.shape == (1, 8, 8, 3)
    assert readable == [1]
    assert unreadable[0][0] == 0
    assert "file must be an image" in unreadable[0][1]


def test_a_folder_without_one_readable_image_is_refused(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"got 1 that cannot; the first: .*bad.png: file must be an image"):
        pack_readable([tmp_path / "bad.png"], PADDED)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_many_images_are_packed_as_one_by_one_in_order_by_any_number_of_processes(tmp_path, rng, num_workers):
    paths = [tmp_path / f"{index}.png" for index in range(70)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(path)
    for index in (0, 68):
        paths[index].write_bytes(b"no image")
    images, readable, unreadable = pack_readable(paths, PADDED, num_workers)
    assert readable == [index for index in range(70) if index not in (0, 68)]
    assert [index for index, _ in unreadable] == [0, 68]
    assert np.array_equal(images, np.stack([pack_new_image(paths[index], PADDED) for index in readable]))


@pytest.mark.parametrize("crop", ["pad", "stretch"])
def test_a_folder_is_read_as_the_encoder_says(tmp_path, pixels, crop):
    Image.fromarray(pixels).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"no image")
    encoder = NamedTensors({}, {"model": {"image_size": 8, "mean": [0.5]}, "crop": crop})
    images, table, unreadable = read_folder(str(tmp_path), encoder, 0, "inference.path")
    assert np.array_equal(images, pack_image(pixels, 8, 1, crop)[None])
    assert table["path"].tolist() == [str(tmp_path / "b.png")]
    assert unreadable["path"].tolist() == [str(tmp_path / "a.png")]
    assert "file must be an image" in unreadable["reason"].item()
    with pytest.raises(ValueError, match=r"other.path must be a folder of images, got None"):
        read_folder(None, encoder, 0, "other.path")
