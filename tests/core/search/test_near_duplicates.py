import io
import logging

import numpy as np
import pandas as pd
import pytest
from tests.core.data.packings import encoded_in

from supcon_pipeline.core.data.pixels import pack_image
from supcon_pipeline.core.data.subsets import choose_points
from supcon_pipeline.core.search import near_duplicates
from supcon_pipeline.core.search.near_duplicates import (
    detail_similarity,
    group_duplicates,
    near_duplicate_pairs,
    tabulate_pairs,
    verified_pairs,
)

SIMILARITY = 0.95


def cut(side):
    """Tiles of the two photographs that scikit-learn ships."""
    from sklearn.datasets import load_sample_images

    return [
        picture[top : top + side, left : left + side]
        for picture in load_sample_images().images
        for top in range(0, len(picture) - side + 1, side)
        for left in range(0, picture.shape[1] - side + 1, side)
    ]


@pytest.fixture(scope="module")
def photographs():
    """12 photographs, each of which is changed, and 48 smaller ones that are not."""
    return [*cut(213), *cut(100)]


def encode(image, quality):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resize(image, scale):
    import cv2

    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def shift(image, pixels):
    return np.pad(image, ((pixels, 0), (0, 0), (0, 0)), mode="edge")[:-pixels]


def brighten(image, factor):
    return np.clip(image * factor, 0, 255).astype(np.uint8)


CHANGES = {
    "JPEG of quality 90": lambda image: encode(image, 90),
    "JPEG of quality 30": lambda image: encode(image, 30),
    "half the size": lambda image: resize(image, 0.5),
    "a third larger": lambda image: resize(image, 1.3),
    "cropped by 5 %": lambda image: image[10:, :-10],
    "cropped by 3 % at each side": lambda image: image[6:-6, 6:-6],
    "shifted by 5 %": lambda image: shift(image, 10),
    "darker": lambda image: brighten(image, 0.7),
    "brighter": lambda image: brighten(image, 1.15),
    "in gray": lambda image: np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2),
    "all at once": lambda image: encode(resize(brighten(image[8:-4, 4:-8], 0.8), 0.7), 60),
}


def pack(images, size=64):
    return np.stack([pack_image(image, size, 3) for image in images])


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_photograph_is_found_again_and_none_is_taken_for_another(photographs, change):
    images = pack([*photographs, *map(change, photographs[:12])])
    found = near_duplicate_pairs(images, SIMILARITY)
    pairs = found[["first", "second"]].to_numpy().tolist()
    assert sorted(pairs) == [[index, index + 60] for index in range(12)]
    assert found["similarity"].between(SIMILARITY, 1 + 1e-6).all()
    assert found["similarity"].is_monotonic_decreasing


@pytest.mark.parametrize("size", [32, 64])
def test_an_image_is_compared_at_any_size_and_in_one_channel(photographs, size):
    images = pack([photographs[9], encode(photographs[9], 60), photographs[10]], size)
    assert detail_similarity(images[0], images[1]) > SIMILARITY > detail_similarity(images[0], images[2])
    assert detail_similarity(images[0][..., :1], images[1][..., :1]) > SIMILARITY


def test_what_is_of_one_colour_is_like_nothing():
    images = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 1, 120, 121)])
    images[1, 0, 0] = 3
    assert near_duplicate_pairs(images, 0.5).empty
    assert detail_similarity(images[0], images[2]) == 0


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_images_are_compared_too(photographs, count):
    found = near_duplicate_pairs(pack([photographs[9], encode(photographs[9], 50)][:count]), SIMILARITY)
    assert len(found) == count - 1


def test_identical_images_are_no_pair_and_the_first_stands_for_them(photographs):
    images = pack([photographs[9], photographs[9], encode(photographs[9], 50), photographs[10]])
    found = near_duplicate_pairs(images, SIMILARITY)
    assert found[["first", "second"]].to_numpy().tolist() == [[0, 2]]
    assert group_duplicates(pd.Series(list("aabc")), found).tolist() == [0, 0, 0, 1]


def test_without_a_similarity_no_pixel_is_read():
    assert near_duplicate_pairs(None, None).columns.tolist() == ["first", "second", "similarity"]


def test_images_that_look_like_too_many_others_are_not_grouped(monkeypatch):
    monkeypatch.setattr(near_duplicates, "MAX_GROUP", 3)
    pairs = pd.DataFrame({"first": [0, 1, 2, 4, 5], "second": [1, 2, 3, 5, 6]})
    # The copies of one image do not count.
    groups = group_duplicates(pd.Series(["a", "b", "c", "d", "e", "f", "g", "g", "g"]), pairs)
    assert len(set(groups[:4])) == 4
    assert len(set(groups[4:])) == 1


def test_the_table_of_pairs_says_what_is_known_of_both():
    samples = pd.DataFrame({"id": ["a", "b"], "class_name": ["cat", "dog"], "split": ["train", "test"]})
    pairs = pd.DataFrame({"first": [0], "second": [1], "similarity": [0.97]})
    assert tabulate_pairs(pairs, samples).to_dict("records") == [
        {
            **{"first": 0, "second": 1, "similarity": 0.97},
            **{"first_id": "a", "first_class": "cat", "first_split": "train"},
            **{"second_id": "b", "second_class": "dog", "second_split": "test"},
        }
    ]


def test_of_given_pairs_those_that_show_one_photograph_are_kept_mirrored_or_not(photographs):
    first, second = photographs[9], photographs[10]
    images = pack([first, encode(first, 60), second, encode(first[8:, ::-1], 60)])
    pairs = np.array([[3, 0], [2, 0], [1, 0]])
    found = verified_pairs(images, pairs, SIMILARITY)
    assert found[["first", "second", "is_mirrored"]].to_numpy().tolist() == [[1, 0, False], [3, 0, True]]
    assert verified_pairs(images, pairs, None).empty
    assert verified_pairs(images, pairs[:0], SIMILARITY).empty


def test_pairs_of_the_images_that_are_compared_are_found_whether_the_other_is_or_not(photographs, caplog):
    images = np.stack([pack_image(image, 64, 3) for image in photographs])
    images = np.concatenate([images, np.stack([brighten(image, 0.8) for image in images[:12]])])
    everyone = near_duplicate_pairs(images, SIMILARITY)
    assert len(everyone) >= 12
    with caplog.at_level(logging.INFO):
        some = near_duplicate_pairs(images, SIMILARITY, max_compared=20, seed=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"20 of {len(images)} images are compared with all others for near-duplicates "
        "(data_prep.max_compared), drawn by seed 1"
    ]
    pairs = {tuple(pair) for pair in everyone[["first", "second"]].to_numpy().tolist()}
    found = {tuple(pair) for pair in some[["first", "second"]].to_numpy().tolist()}
    compared = set(choose_points(pd.Series(np.zeros(len(images))), 20, 1).tolist())
    assert found == {pair for pair in pairs if compared & set(pair)}
    assert 0 < len(found) < len(pairs)
    assert near_duplicate_pairs(images, SIMILARITY, len(images)).equals(everyone)


def test_copies_are_found_among_encoded_images_as_among_squares(photographs, tmp_path):
    copies = [encode(photographs[0], 30), resize(photographs[1], 0.5), brighten(photographs[2], 0.7)]
    images = encoded_in(tmp_path / "images.npy", [*photographs, *copies], size=200)
    count = len(photographs)
    pairs = near_duplicate_pairs(images, SIMILARITY)
    found = {tuple(pair) for pair in pairs[["first", "second"]].to_numpy()}
    assert found == {(row, count + row) for row in range(3)}
    given = np.array([[0, count], [0, count + 1], [1, count + 1]])
    verified = verified_pairs(images, given, SIMILARITY)
    assert sorted(verified["first"]) == [0, 1]
