import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from tests.core.data.packings import PACKING, encoded_in
from torchvision.transforms import v2

from supcon_pipeline.core.data.encoded_images import (
    EncodedImages,
    encode_image,
    open_images,
    seen_at,
)
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_store import PackingStore, identify_packing, write_encoded
from supcon_pipeline.core.data.pixels import (
    channel_statistics,
    content_hash,
    pack_image,
    pixel_hashes,
    read_chunks,
    shrink_images,
)
from supcon_pipeline.core.messages import InputError

ENCODED = Packing(64, 3, "crop", "encoded")


@pytest.fixture(scope="module")
def photographs():
    """Two of 640 x 427 pixels, one on its side, and one smaller than it is stored."""
    china, flower = load_sample_images().images
    small = cv2.resize(china, (60, 40), interpolation=cv2.INTER_AREA)
    return [china, flower, np.ascontiguousarray(china.swapaxes(0, 1)), small]


def stored(folder: Path, images, **options) -> EncodedImages:
    return encoded_in(folder / f"{len(list(folder.iterdir()))}.npy", images, **options)


def test_each_image_keeps_its_aspect_with_its_shorter_side_at_most_the_size(photographs):
    encoded = [encode_image(image, 64, 3) for image in photographs]
    assert [(one.height, one.width) for one in encoded] == [(64, 96), (64, 96), (96, 64), (40, 60)]
    for one, image in zip(encoded, photographs, strict=True):
        found = cv2.imdecode(np.frombuffer(one.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        wanted = cv2.resize(image, (one.width, one.height), interpolation=cv2.INTER_AREA)
        assert np.abs(found.astype(int) - wanted).mean() < 6


def test_of_an_extreme_aspect_the_longer_side_is_at_most_four_sizes():
    for shape in ((10, 3000, 3), (3000, 1, 3)):
        one = encode_image(np.full(shape, 9, np.uint8), 64, 3)
        assert max(one.height, one.width) == 256
        assert min(one.height, one.width) == 1


@pytest.mark.parametrize("num_channels", [1, 3])
def test_images_are_read_as_an_array_of_squares(photographs, tmp_path: Path, num_channels):
    images = stored(tmp_path, photographs, num_channels=num_channels)
    assert (images.shape, images.dtype, images.ndim, len(images)) == (
        (4, 64, 64, num_channels),
        np.uint8,
        4,
        4,
    )
    assert images.nbytes < 4 * 64 * 64 * 3
    everything = images[:]
    for rows in (slice(1, 3), np.array([3, 0, 0]), np.array([True, False, False, True]), -1, np.int64(2)):
        assert np.array_equal(images[rows], everything[rows])
    wanted = np.stack([pack_image(image, 64, num_channels, "crop") for image in photographs])
    assert np.abs(everything.astype(int) - wanted).mean() < 7


@pytest.mark.parametrize("crop", ["crop", "pad"])
def test_squares_are_what_packing_makes_of_the_stored_image(photographs, tmp_path: Path, crop):
    images = stored(tmp_path, photographs, crop=crop)
    whole = list(images.whole(np.arange(3)))
    assert np.array_equal(images[:3], np.stack([pack_image(image, 64, 3, crop) for image in whole]))


def test_evaluation_sees_what_torchvision_sees_of_the_photograph(photographs, tmp_path: Path):
    large = photographs[:3]
    images = stored(tmp_path, large, size=256)
    resize = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(256)])
    for square, image in zip(images[:], large, strict=True):
        wanted = resize(torch.from_numpy(image.copy()).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        difference = square.astype(int) - wanted
        # No further than squares of raw pixels, which are shrunk by area as well.
        assert (
            np.abs(difference).mean() < np.abs(pack_image(image, 256, 3, "crop").astype(int) - wanted).mean()
        )
        assert abs(difference.mean()) < 0.2


def test_an_image_is_read_whole_with_the_side_of_a_square(photographs, tmp_path: Path):
    images = stored(tmp_path, photographs)
    assert [image.shape for image in images.whole(np.array([3, 2, 0]))] == [
        (64, 96, 3),
        (96, 64, 3),
        (64, 96, 3),
    ]


def test_of_a_long_strip_the_middle_is_seen(tmp_path: Path):
    strip = np.zeros((32, 32 * 8, 3), np.uint8)
    strip[:, 64:-64] = 200
    (image,) = stored(tmp_path, [strip], size=32).whole(np.array([0]))
    assert image.shape == (32, 128, 3)
    assert image.mean() > 190


def test_what_is_to_be_shrunk_is_decoded_smaller_and_looks_the_same(photographs, tmp_path: Path):
    images = stored(tmp_path, photographs[:3], size=256)
    (half,) = images.whole(np.array([0]), least_side=100)
    assert half.shape == (128, 192, 3)
    (full,) = images.whole(np.array([0]), least_side=129)
    assert full.shape == (256, 384, 3)
    assert np.abs(half.astype(int) - cv2.resize(full, (192, 128), interpolation=cv2.INTER_AREA)).mean() < 3
    small = seen_at(images, 64)
    assert small.shape == (3, 64, 64, 3)
    assert np.array_equal(shrink_images(images, 64), small[:])
    assert np.abs(small[:].astype(int) - shrink_images(images[:], 64)).mean() < 3
    assert seen_at(images, 256) is images
    assert images.shape[1] == 256


def test_a_file_of_many_images_is_written_in_parts_and_read_at_random(rng, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("supcon_pipeline.core.data.encoded_images._BATCH_BYTES", 4000)
    given = rng.integers(0, 256, (40, 24, 16, 3), dtype=np.uint8)
    images = stored(tmp_path, given, size=16)
    assert images._contents.num_chunks > 5
    alone = [stored(tmp_path, given[[row]], size=16)[0] for row in (0, 17, 39)]
    assert np.array_equal(images[[0, 17, 39]], np.stack(alone))
    assert np.array_equal(np.concatenate(list(read_chunks(images))), images[:])


def test_another_process_gets_the_place_of_the_file(photographs, tmp_path: Path):
    images = stored(tmp_path, photographs).resized(16)
    sent = pickle.dumps(images)
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent)[:], images[:])


def test_equal_images_have_equal_hashes_and_no_others(photographs, tmp_path: Path):
    images = stored(tmp_path, [*photographs, photographs[1]])
    hashes = pixel_hashes(images)
    assert hashes[1] == hashes[4]
    assert len(set(hashes)) == 4


def test_the_hash_of_the_data_changes_with_an_image_their_order_and_the_crop(photographs, tmp_path: Path):
    def hash_of(images, crop="crop", label=0):
        return content_hash(stored(tmp_path, images, crop=crop), [label])

    same = hash_of(photographs)
    assert same == hash_of(photographs)
    changed = [hash_of(photographs[::-1]), hash_of(photographs[:3]), hash_of(photographs, "pad")]
    assert len({same, *changed, hash_of(photographs, label=1)}) == 5


def test_statistics_are_those_of_the_squares(photographs, tmp_path: Path):
    images = stored(tmp_path, photographs)
    chosen = np.array([0, 2])
    assert channel_statistics(images, chosen) == channel_statistics(images[:], chosen)


def test_bytes_that_are_no_such_file_are_refused(photographs, tmp_path: Path):
    images = stored(tmp_path, photographs)
    for content in (images.stored[:100], images.stored[8:], np.zeros(99, np.uint8)):
        with pytest.raises((ValueError, OSError), match=r"Arrow|flatbuffers"):
            EncodedImages(content)


def test_a_stored_image_that_is_no_jpeg_is_named(tmp_path: Path):
    one = encode_image(np.zeros((8, 8, 3), np.uint8), 8, 3)
    with (tmp_path / "images.npy").open("wb") as file:
        write_encoded(file, [one, type(one)(b"no image", 8, 8)], (8, 8, 3), "crop")
    with pytest.raises(ValueError, match="stored image 1 must be a JPEG, got 8 other bytes"):
        open_images(tmp_path / "images.npy")[:]


def test_the_store_packs_encodes_rejects_and_reuses(items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given, _ = items
    store, packing = PackingStore(tmp_path / "packing"), Packing(8, 3, "pad", "encoded")
    images, rejected = store.pack(given, packing, 0)
    assert isinstance(images, EncodedImages)
    assert images.shape == (4, 8, 8, 3)
    assert [position for position, _ in rejected] == [3, 4]
    packed, pack = [], Packing.pack
    monkeypatch.setattr(Packing, "pack", lambda self, item: packed.append(item) or pack(self, item))
    again, _ = store.pack(given, packing, 0)
    assert np.array_equal(again[:], images[:])
    assert packed == given[3:5]


def test_squares_and_encoded_images_are_different_packings(items):
    given, _ = items
    encoded = Packing(8, 3, "pad", "encoded")
    assert identify_packing(given, PACKING) != identify_packing(given, encoded)


def test_the_packing_in_workers_is_that_of_this_process(items, tmp_path: Path):
    given, _ = items
    packing = Packing(8, 3, "pad", "encoded")
    alone, first = PackingStore(tmp_path / "alone").pack(given, packing, 0)
    shared, second = PackingStore(tmp_path / "shared").pack(given, packing, 2)
    assert np.array_equal(alone.stored, shared.stored)
    assert first == second


def test_a_broken_packing_is_set_aside_and_made_again(items, tmp_path: Path):
    given, _ = items
    store, packing = PackingStore(tmp_path / "packing"), Packing(8, 3, "pad", "encoded")
    images, _ = store.pack(given, packing, 0)
    stored_before = images.stored.copy()
    (path,) = store.folder.glob("*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    again, _ = store.pack(given, packing, 0)
    assert np.array_equal(again.stored, stored_before)
    assert path.with_name(path.name + ".broken").exists()


def test_nothing_but_rejected_images_is_an_empty_file_that_can_be_read(tmp_path: Path):
    images, rejected = PackingStore(tmp_path).pack([tmp_path / "gone.png"] * 2, ENCODED, 0)
    assert (images.shape, images[:].shape) == ((0, 64, 64, 3), (0, 64, 64, 3))
    assert len(rejected) == 2


def test_what_is_no_image_is_refused_when_it_is_encoded():
    with pytest.raises(InputError, match="image must be uint8 with 1 or 3 channels, got float64"):
        encode_image(np.zeros((8, 8, 3)), 8, 3)
