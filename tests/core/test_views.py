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


def test_transforms_draw_from_one_stream_and_not_from_equal_ones():
    corners = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    flips = [{"name": name, "args": {"p": 0.5}} for name in ("HorizontalFlip", "VerticalFlip")]
    views = ViewPolicy(flips, num_views=400)(corners, seed=0)
    counts = np.bincount(views[0, :, 0, 0, 0], minlength=4)
    # Each of the four flips is a quarter of 400; equal streams gave 200, 0, 0, 200.
    assert all(60 < count < 140 for count in counts)


def test_views_are_those_of_a_compose_that_draws_from_the_same_stream(images):
    import random

    import albumentations

    specs = [NOISE, FLIP, {"name": "Affine", "args": {"rotate": [-30, 30], "p": 0.7}}]
    compose = albumentations.Compose([build_transform(**spec) for spec in specs])
    # Its one draw from the stream, of whether it is applied at all, is not made here.
    transforms = albumentations.Sequential(compose.transforms)
    transforms.set_random_state(np.random.default_rng(7), random.Random(7))
    draws = []
    for image in images:
        for _ in range(2):
            view = image
            for transform in transforms.transforms:
                view = transform(image=view)["image"]
            draws.append(view)
    assert np.array_equal(ViewPolicy(specs, num_views=2)(images, seed=7).reshape(6, 8, 8, 3), np.stack(draws))


def test_views_of_unequal_shape_are_refused_in_one_line(images):
    crop = {"name": "CropAndPad", "args": {"px": [-3, 3], "keep_size": False, "p": 1.0}}
    with pytest.raises(ValueError, match=r"transforms must give views of one shape in uint8, got uint8 \["):
        ViewPolicy([crop], num_views=4)(images, seed=0)


def test_views_that_are_not_uint8_are_refused(images):
    with pytest.raises(ValueError, match=r"in uint8, got float32 \[8, 8, 3\]"):
        ViewPolicy([{"name": "Normalize"}], num_views=1)(images, seed=0)
