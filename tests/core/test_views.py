import numpy as np
import pytest

from supcon_pipeline.core.views import ViewPolicy, build_transform

FLIP = {"name": "HorizontalFlip", "args": {"p": 1.0}}
LEFT_HALF = {"name": "Crop", "args": {"x_max": 4, "y_max": 8}}
NOISE = {"name": "RandomBrightnessContrast", "args": {"p": 1.0}}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def test_without_transforms_every_view_is_the_image(images):
    views = ViewPolicy([], num_views=2)(images, seed=0)
    assert views.dtype == np.uint8
    assert np.array_equal(views, np.stack([images, images], axis=1))


def test_transforms_are_applied_in_their_order(images):
    flip_of_left = ViewPolicy([LEFT_HALF, FLIP], num_views=1)(images, seed=0)
    left_of_flip = ViewPolicy([FLIP, LEFT_HALF], num_views=1)(images, seed=0)
    assert np.array_equal(flip_of_left[:, 0], images[:, :, :4][:, :, ::-1])
    assert np.array_equal(left_of_flip[:, 0], images[:, :, ::-1][:, :, :4])


def test_views_depend_on_the_seed_alone(images):
    policy = ViewPolicy([NOISE], num_views=2)
    first = policy(images, seed=5)
    assert not np.array_equal(first, policy(images, seed=6))
    assert np.array_equal(first, policy(images, seed=5))
    assert np.array_equal(first, ViewPolicy([NOISE], num_views=2)(images, seed=5))


def test_views_of_one_image_differ(images):
    views = ViewPolicy([NOISE], num_views=2)(images, seed=0)
    assert all(not np.array_equal(first, second) for first, second in views)


def test_views_of_equal_images_in_a_batch_differ(images):
    views = ViewPolicy([NOISE], num_views=1)(images[[0, 0]], seed=0)
    assert not np.array_equal(views[0], views[1])


@pytest.mark.parametrize("name", ["Affine", "ElasticTransform", "RandomBrightnessContrast", "HorizontalFlip"])
def test_grey_images_keep_their_channel(images, name):
    policy = ViewPolicy([{"name": name, "args": {"p": 1.0}}], num_views=2)
    assert policy(images[..., :1], seed=0).shape == (3, 2, 8, 8, 1)


def test_a_batch_of_one_works(images):
    assert np.array_equal(ViewPolicy([FLIP], 1)(images[:1], seed=0)[0, 0], images[0, :, ::-1])


def test_the_images_are_left_as_they_were(images):
    before = images.copy()
    ViewPolicy([FLIP, NOISE], num_views=2)(images, seed=0)
    assert np.array_equal(images, before)


def test_a_seed_of_32_bits_is_taken(images):
    assert ViewPolicy([NOISE], num_views=1)(images, seed=2**32 - 1).shape == (3, 1, 8, 8, 3)


def test_fewer_than_one_view_is_refused():
    with pytest.raises(ValueError, match="num_views must be at least 1, got 0"):
        ViewPolicy([], num_views=0)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("HorizontalFlop", {}, "got 'HorizontalFlop'; did you mean HorizontalFlip"),
        ("Compose", {}, "transform must be the name of an albumentations transform, got 'Compose'"),
        ("HorizontalFlip", {"prob": 1.0}, "args of HorizontalFlip must be its arguments.*prob"),
        ("HorizontalFlip", {"p": 2.0}, "args of HorizontalFlip must be its arguments, got {'p': 2.0}"),
        ("Crop", {"x_min": 9, "x_max": 3}, "args of Crop must be its arguments"),
    ],
)
def test_a_transform_that_does_not_exist_so_is_refused(name, args, message):
    with pytest.raises(ValueError, match=message):
        build_transform(name, args)
