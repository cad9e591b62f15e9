import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.views.policy import ViewPolicy, build_transform
from supcon_pipeline.core.views.presets import PRESETS, preset

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
        ("HorizontalFlop", {}, "got 'HorizontalFlop'; did you mean 'HorizontalFlip'"),
        ("Compose", {}, "transform must be the name of an albumentations transform, got 'Compose'"),
        ("HorizontalFlip", {"prob": 1.0}, "args of HorizontalFlip must be valid.*prob"),
        (
            "HorizontalFlip",
            {"p": 2.0},
            "args of HorizontalFlip must be valid, got {'p': 2.0}",
        ),
        ("Crop", {"x_min": 9, "x_max": 3}, "args of Crop must be valid"),
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


def test_noise_of_the_library_underneath_comes_from_the_seed_too(images):
    policy = ViewPolicy(
        [{"name": "GaussNoise", "args": {"p": 1.0}}, {"name": "ISONoise", "args": {"p": 1.0}}], 2
    )
    first = policy(images, seed=3)
    assert np.array_equal(first, policy(images, seed=3))
    assert not np.array_equal(first, policy(images, seed=4))


def test_views_of_unequal_shape_are_refused_in_one_line(images):
    crop = {"name": "CropAndPad", "args": {"px": [-3, 3], "keep_size": False, "p": 1.0}}
    with pytest.raises(ValueError, match=r"transforms must give views of one shape in uint8, got uint8 \["):
        ViewPolicy([crop], num_views=4)(images, seed=0)


def test_views_that_are_not_uint8_are_refused(images):
    with pytest.raises(ValueError, match=r"in uint8, got float32 \[8, 8, 3\]"):
        ViewPolicy([{"name": "Normalize"}], num_views=1)(images, seed=0)


def test_a_transform_without_a_size_takes_that_of_the_images(rng):
    crop = {"name": "RandomResizedCrop", "args": {"scale": [0.2, 0.5]}}
    images = rng.integers(0, 256, (2, 12, 10, 3), dtype=np.uint8)
    assert ViewPolicy([crop], 2, (12, 10, 3))(images, seed=0).shape == (2, 2, 12, 10, 3)
    sized = {"name": "RandomResizedCrop", "args": {"size": [6, 4]}}
    assert ViewPolicy([sized], 2, (12, 10, 3))(images, seed=0).shape == (2, 2, 6, 4, 3)


def test_one_of_several_transforms_is_applied(images):
    flips = [{"name": name, "args": {"p": 1.0}} for name in ("HorizontalFlip", "VerticalFlip")]
    one = {"name": "OneOf", "args": {"transforms": flips, "p": 1.0}}
    views = ViewPolicy([one], 40)(images[:1], seed=0)[0]
    is_horizontal = [np.array_equal(view, images[0, :, ::-1]) for view in views]
    is_vertical = [np.array_equal(view, images[0, ::-1]) for view in views]
    assert all(a != b for a, b in zip(is_horizontal, is_vertical, strict=True))
    assert 5 < sum(is_horizontal) < 35


def test_some_of_several_transforms_are_applied(images):
    flips = [{"name": name, "args": {"p": 1.0}} for name in ("HorizontalFlip", "VerticalFlip")]
    both = ViewPolicy([{"name": "SomeOf", "args": {"transforms": flips, "n": 2}}], 1)(images, seed=0)
    assert np.array_equal(both[:, 0], images[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            [{"name": "CropAndPad", "args": {"px": [-3, 3], "keep_size": False}}],
            "transforms must give views of one shape, got .* because of CropAndPad",
        ),
        (
            [{"name": "RandomCrop", "args": {"height": 4, "width": 4, "p": 0.5}}],
            r"got \[4, 4, 3\] and \[8, 8, 3\] because of RandomCrop; give RandomCrop p: 1.0 and one size",
        ),
        ([FLIP, {"name": "Normalize"}], r"transform Normalize must give uint8 images with 3 channels"),
        (
            [{"name": "RandomCrop", "args": {"height": 9, "width": 9}}],
            r"transform RandomCrop must work on images \[8, 8, 3\], got: ",
        ),
    ],
)
def test_a_policy_that_cannot_be_batched_is_refused_before_it_is_used(transforms, message):
    with pytest.raises(ValueError, match=message):
        ViewPolicy(transforms, 2, (8, 8, 3))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, r"transforms of OneOf must be a list of {name, args}, got None"),
        ({"transforms": []}, "transforms of OneOf must be a list"),
        (
            {"transforms": [{"nam": "HorizontalFlip"}]},
            "transforms of OneOf must have a name and optional args",
        ),
        ({"transforms": [{"name": "HorizontalFlop"}]}, "did you mean 'HorizontalFlip'"),
        ({"transforms": [{"name": "HorizontalFlip", "args": {"q": 1}}]}, "args of HorizontalFlip must be"),
    ],
)
def test_a_wrong_composition_is_refused(args, message):
    with pytest.raises(ValueError, match=message):
        build_transform("OneOf", args)


def test_a_policy_whose_views_leave_a_size_of_their_own_is_taken():
    resized = [
        {"name": "CropAndPad", "args": {"px": [-3, 3], "keep_size": False}},
        {"name": "Resize", "args": {}},
    ]
    images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    assert ViewPolicy(resized, 2, (8, 8, 3))(images, seed=0).shape == (1, 2, 8, 8, 3)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [32, 96])
def test_every_preset_makes_views_of_the_images_size(rng, name, size):
    images = rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    views = ViewPolicy(preset(name), 2, (size, size, 3))(images, seed=0)
    assert views.shape == (4, 2, size, size, 3)
    assert all(not np.array_equal(first, second) for first, second in views)


@pytest.mark.parametrize("name", ["small_image", "photograph"])
def test_a_preset_for_colour_is_refused_for_grey_images_by_the_name_of_the_transform(name):
    with pytest.raises(ValueError, match=r"transform (ColorJitter|ToGray) must"):
        ViewPolicy(preset(name), 2, (32, 32, 1))


def test_a_preset_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError, match=r"must be a list or the name of a preset, .*did you mean 'photograph'"
    ):
        preset("photographs")


def test_views_grow_with_the_training_and_stay_what_they_are_without_sizes(images):
    crop = [{"name": "RandomResizedCrop"}]
    policy = ViewPolicy(crop, 1, images.shape[1:], view_sizes=[4, 6, 12], num_epochs=6)
    sides = [policy(images, 0, epoch).shape[2:4] for epoch in range(7)]
    assert sides == [(4, 4)] * 2 + [(6, 6)] * 2 + [(12, 12)] * 3
    one, plain = ViewPolicy(crop, 1, images.shape[1:], view_sizes=[8]), ViewPolicy(crop, 1, images.shape[1:])
    assert np.array_equal(one(images, 3), plain(images, 3))


def test_a_view_is_cut_from_the_image_as_it_is_stored_whatever_its_own_size():
    policy = ViewPolicy([{"name": "RandomResizedCrop", "args": {"scale": [1.0, 1.0]}}], 1, (8, 8, 3), [4])
    smooth = np.linspace(0, 255, 8).astype(np.uint8)[None, :, None, None] * np.ones((1, 1, 8, 3), np.uint8)
    (view,) = policy(smooth, 0)[0]
    # The means of pairs of 0, 36, 72, 109, 145, 182, 218 and 255.
    assert view[:, 0, 0].tolist() == [18, 91, 164, 237]


@pytest.mark.parametrize("transforms", [[], [{"name": "HorizontalFlip"}]])
def test_views_have_their_size_where_no_transform_gives_them_one(images, transforms):
    policy = ViewPolicy(transforms, 1, images.shape[1:], view_sizes=[4, 12], num_epochs=2, resizes=True)
    assert [policy(images, 0, epoch).shape[2:4] for epoch in range(2)] == [(4, 4), (12, 12)]
    assert [shape[:2] for shape in policy.shapes] == [(4, 4), (12, 12)]
    shape, own = images.shape[1:], [images.shape[1]]
    same, plain = (ViewPolicy(transforms, 1, shape, own, resizes=is_set) for is_set in (True, False))
    assert np.array_equal(same(images, 3), plain(images, 3))


def test_views_change_their_size_after_a_part_in_which_they_are_as_large_as_images(images):
    own = images.shape[1]
    policy = ViewPolicy([], 1, images.shape[1:], view_sizes=[own, 4], num_epochs=2, resizes=True)
    assert [policy(images, 0, epoch).shape[2:4] for epoch in range(2)] == [(own, own), (4, 4)]


def test_a_size_that_a_transform_is_given_stays(images):
    resize = [{"name": "Resize", "args": {"height": 6, "width": 6}}]
    policy = ViewPolicy(resize, 1, images.shape[1:], view_sizes=[4], resizes=True)
    assert policy(images, 0).shape[2:4] == (6, 6)


def test_images_with_their_own_aspect_are_not_squeezed_into_a_view():
    with pytest.raises(InputError, match="encoded images keep their aspect; begin with RandomResizedCrop"):
        ViewPolicy([{"name": "HorizontalFlip"}], 1, (32, 32, 3), [16], keeps_aspect=True, resizes=True)


def place_of(view):
    """Height and width of what a view shows of an image whose red and green tell row and column."""
    rows, columns = (view[..., channel].astype(float) for channel in (0, 1))
    # A view of n pixels shows n - 1 steps between the first and the last.
    height, width = (
        np.abs(np.diff(steps.mean(axis=axis))[4:-4]).mean() * len(view) / 255
        for steps, axis in ((rows, 1), (columns, 0))
    )
    return height, width


def test_views_of_an_image_with_its_own_aspect_cover_what_torchvisions_cover():
    height, width = 64, 128
    ramps = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    image = np.stack([*ramps, np.zeros_like(ramps[0])], axis=-1).round().astype(np.uint8)
    crop = [{"name": "RandomResizedCrop", "args": {"scale": [0.2, 1.0]}}]
    policy = ViewPolicy(crop, 500, (64, 64, 3), [48], keeps_aspect=True)
    shown = np.array([place_of(view) for view in policy([image], seed=0)[0]])
    torch.manual_seed(0)
    blank = torch.zeros(3, height, width)
    boxes = [v2.RandomResizedCrop(48, scale=(0.2, 1.0)).make_params([blank]) for _ in range(2000)]
    wanted = np.array([(box["height"] / height, box["width"] / width) for box in boxes])
    assert ks_2samp(shown.prod(axis=1), wanted.prod(axis=1)).statistic < 0.08
    # Whole pixels make many aspects the same, which measuring tells apart.
    assert ks_2samp(shown[:, 1] / shown[:, 0], wanted[:, 1] / wanted[:, 0]).statistic < 0.12


def test_views_of_images_of_several_shapes_have_one_shape(rng):
    shapes = [(8, 8, 3), (8, 32, 3), (32, 8, 3)]
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    policy = ViewPolicy([{"name": "RandomResizedCrop"}, FLIP], 2, (8, 8, 3), keeps_aspect=True)
    assert policy(iter(images), seed=0).shape == (3, 2, 8, 8, 3)
    # The views of an image do not depend on how it comes.
    assert np.array_equal(policy(np.stack([images[0]] * 3), 5), policy([images[0]] * 3, 5))


@pytest.mark.parametrize(
    "transforms",
    [
        [FLIP],
        [{"name": "RandomResizedCrop", "args": {"p": 0.5}}],
        [{"name": "SmallestMaxSize", "args": {"max_size": 8}}],
    ],
)
def test_a_policy_that_leaves_images_their_aspect_is_refused_with_what_to_add(transforms):
    message = "got .* because encoded images keep their aspect; begin with RandomResizedCrop, or use --par"
    with pytest.raises(InputError, match=message):
        ViewPolicy(transforms, 1, (8, 8, 3), keeps_aspect=True)
    ViewPolicy([*transforms, {"name": "Resize"}], 1, (8, 8, 3), keeps_aspect=True)


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([{"name": "RandomResizedCrop", "args": {"scale": [0.25, 1.0], "ratio": [1.0, 1.0]}}], [32, 64]),
        ([{"name": "RandomResizedCrop", "args": {"scale": [1.0, 1.0], "ratio": [0.25, 2.0]}}], [32, 64]),
        ([{"name": "RandomResizedCrop", "args": {"p": 0.9}}, {"name": "Resize"}], [None, None]),
        ([{"name": "RandomCrop", "args": {"height": 8, "width": 8}}], [None, None]),
    ],
)
def test_an_image_may_be_as_small_as_the_smallest_crop_needs(transforms, expected):
    policy = ViewPolicy(transforms, 1, view_sizes=[16, 32], num_epochs=2)
    assert [policy.least_side(epoch) for epoch in range(2)] == expected
