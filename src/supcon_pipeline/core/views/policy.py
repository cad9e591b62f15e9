"""Views of an image: an albumentations policy described by names and arguments."""

import math
import os
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from supcon_pipeline.core.data.pixels import LONGEST
from supcon_pipeline.core.messages import InputError, show, suggest

# At import, the library looks online for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


# Trials of a policy before a training; what happens to one view in ten is missed once in 40,000 times.
NUM_REHEARSALS = 100
# Fewer for large images, so that it takes a fraction of a second.
REHEARSED_PIXELS = NUM_REHEARSALS * 224 * 224
# cv2.INTER_AREA: a pixel is the mean of those that it covers.
_AREA = 3
# Stands in for the image size when arguments are validated before there are images.
ANY_SIZE = (224, 224)
Spec = Mapping[str, Any]

# The policies already tried in this process, with the shape of their images.
_rehearsed: set[str] = set()


class ViewPolicy:
    """Random transforms that turn images into views.

    Args:
        transforms: each `{"name": <albumentations class>, "args": {...}}`, applied in order; without any,
            a view is the image itself.
        num_views: views per image, at least 1.
        image_shape: `(h, w, c)` of the images. If given, the policy is tried before it is used.
        view_sizes: height and width of the views that transforms without a size make, one for each of as
            many equal parts of the training; by default, the size of the images.
        num_epochs: epochs of the training.
        keeps_aspect: whether images come with their own aspect where there are transforms; `image_shape` is
            then that of a square one, as they come without.
        resizes: whether transforms that leave the size of the images as it is are followed by a resize to
            `view_sizes`; not if the images keep their aspect.

    Attributes:
        has_transforms: whether views are made by transforms; without, by at most a resize.

    Raises:
        InputError: if a name is not an albumentations transform, its arguments are wrong, or the views of
            such images would not be uint8, of one shape and with the channels of the image.
        ValueError: if `num_views` is below 1.
    """

    def __init__(
        self,
        transforms: Sequence[Spec],
        num_views: int,
        image_shape: tuple[int, int, int] | None = None,
        view_sizes: Sequence[int] = (),
        num_epochs: int = 1,
        keeps_aspect: bool = False,
        resizes: bool = False,
    ):
        if num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {num_views}")
        self.num_views, self.num_epochs, self.has_transforms = num_views, num_epochs, bool(transforms)
        own = ANY_SIZE if image_shape is None else image_shape[:2]
        sizes = [(size, size) for size in view_sizes] or [own]
        self.parts = [_compose(transforms, size) for size in sizes]
        # The height, width and channels of the views of each part, as far as the images are known.
        self.shapes: list[tuple[int, ...]] = []
        if image_shape is None:
            return
        keeps_aspect = keeps_aspect and self.has_transforms
        if resizes and not keeps_aspect:
            self.parts = [_resized(*part, image_shape) for part in zip(self.parts, sizes, strict=True)]
        # A run builds the same policy several times: to validate it, to draw it and to train.
        key = repr((transforms, image_shape, sizes, keeps_aspect, resizes))
        if key not in _rehearsed:
            for compose in self.parts:
                self._rehearse(compose, _shapes_like(image_shape, keeps_aspect))
            _rehearsed.add(key)
        self.shapes = [_shape_of_view(compose, image_shape) for compose in self.parts]

    def least_side(self, epoch: int) -> int | None:
        """How short the shorter side of an image may be without a view losing detail; none where unknown.

        Known where a view begins with a random crop: the smallest crop then has as many pixels as the view.
        """
        import albumentations

        first = self._part(epoch).transforms[0]
        if not isinstance(first, albumentations.RandomResizedCrop) or first.p < 1:
            return None
        narrowest = float(min(first.ratio[0], 1 / first.ratio[1]))
        side: int = max(first.size)
        return math.ceil(side / math.sqrt(first.scale[0] * narrowest))

    def _part(self, epoch: int) -> Any:
        return self.parts[min(epoch * len(self.parts) // self.num_epochs, len(self.parts) - 1)]

    def __call__(
        self,
        images: UInt8[np.ndarray, "batch h w c"] | Iterable[UInt8[np.ndarray, "h w c"]],
        seed: int | np.random.Generator,
        epoch: int = 0,
    ) -> UInt8[np.ndarray, "batch views view_h view_w c"]:
        """The views of a batch; the same seed gives the same views.

        Args:
            images: to make views of; where there are transforms, perhaps of several shapes.
            seed: of everything random.
            epoch: of the training, counted from 0; it decides the size of the views.

        Raises:
            InputError: if the transforms give views of different shapes or of another type than uint8.
        """
        if not self._part(epoch).transforms:
            return np.repeat(np.asarray(images)[:, None], self.num_views, axis=1)
        compose = self._part(epoch)
        _seed(compose, np.random.default_rng(seed))
        images = np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images
        rows = [_view(compose, image) for image in images for _ in range(self.num_views)]
        views = np.empty((len(rows), *rows[0].shape), dtype=np.uint8)
        for index, view in enumerate(rows):
            if view.shape != views.shape[1:] or view.dtype != np.uint8:
                raise InputError(
                    f"transforms must give views of one shape in uint8, got {view.dtype} {list(view.shape)} "
                    f"beside {list(views.shape[1:])}; end with a crop or resize to a fixed size"
                )
            views[index] = view
        return views.reshape(-1, self.num_views, *views.shape[1:])

    def _rehearse(self, compose: Any, image_shapes: Sequence[tuple[int, int, int]]) -> None:
        """Check the views of such images.

        Raises:
            InputError: if a transform fails, or gives views that cannot be stacked into a batch.
        """
        generator = np.random.default_rng(0)
        _seed(compose, generator)
        images = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in image_shapes]
        num_pixels = max(image.shape[0] * image.shape[1] for image in images)
        num_rehearsals = min(NUM_REHEARSALS, max(8, REHEARSED_PIXELS // num_pixels))
        seen: list[set[tuple[int, ...]]] = [set() for _ in compose.transforms]
        for trial in range(num_rehearsals):
            view = images[trial % len(images)]
            for transform, shapes in zip(compose.transforms, seen, strict=True):
                view = _try_transform(transform, view)
                shapes.add(view.shape)
        if not seen or len(seen[-1]) == 1:
            return
        first = next(index for index, shapes in enumerate(seen) if len(shapes) > 1)
        name = type(compose.transforms[first]).__name__
        found = " and ".join(str(list(shape)) for shape in sorted(seen[-1])[:2])
        if len(images) > 1:
            raise InputError(
                f"transforms must give views of one shape, got {found} because encoded images keep their "
                "aspect; begin with RandomResizedCrop, or use --params data_prep.storage=squares"
            )
        raise InputError(
            f"transforms must give views of one shape, got {found} because of {name}; "
            f"give {name} p: 1.0 and one size, or add Resize as the last transform"
        )


def _shapes_like(image_shape: tuple[int, int, int], keeps_aspect: bool) -> list[tuple[int, int, int]]:
    """The shapes of images to try: of a square one, and where images keep their aspect, the extremes."""
    height, width, num_channels = image_shape
    longest = [(height, LONGEST * width, num_channels), (LONGEST * height, width, num_channels)]
    return [image_shape, *longest] if keeps_aspect else [image_shape]


def _compose(transforms: Sequence[Spec], size: tuple[int, int]) -> Any:
    import albumentations

    return albumentations.Compose([build_transform(**spec, size=size) for spec in transforms])


def _resized(compose: Any, size: tuple[int, int], image_shape: tuple[int, int, int]) -> Any:
    """The same, of views of that size where it would leave the size of the images as it is."""
    try:
        shape = _shape_of_view(compose, image_shape)
    # What fails is told by the rehearsal.
    except Exception:
        return compose
    if shape[:2] != image_shape[:2] or size == image_shape[:2]:
        return compose
    resize = build_transform("Resize", {"interpolation": _AREA}, size)
    return type(compose)([*compose.transforms, resize])


def _shape_of_view(compose: Any, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    _seed(compose, np.random.default_rng(0))
    return _view(compose, np.zeros(image_shape, np.uint8)).shape


def _view(compose: Any, image: UInt8[np.ndarray, "h w c"]) -> np.ndarray:
    """One view, without the checks that `Compose` makes for masks and boxes."""
    for transform in compose.transforms:
        image = transform(image=image)["image"]
    return image


def _seed(compose: Any, generator: np.random.Generator) -> None:
    """Make all transforms draw from one random stream.

    `Compose.set_random_seed` starts every transform from the same seed: they would draw the same numbers, so
    that two flips, each with probability 0.5, would always happen together or not at all.
    """
    import cv2

    py_random = random.Random(int.from_bytes(generator.bytes(16), "little"))
    compose.set_random_state(generator, py_random)
    # The noise of some transforms comes from OpenCV's global generator.
    cv2.setRNGSeed(int(generator.integers(2**31)))


def _try_transform(transform: Any, image: np.ndarray) -> np.ndarray:
    """The image after one transform.

    Raises:
        InputError: if it fails, warns, or changes the type or the channels.
    """
    name, shape = type(transform).__name__, list(image.shape)
    try:
        with warnings.catch_warnings():
            # A warning would be repeated for every view.
            warnings.simplefilter("error", UserWarning)
            view: np.ndarray = transform(image=image)["image"]
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"transform {name} must work on images {shape}, got: {reason}") from error
    if view.dtype != np.uint8 or view.ndim != 3 or view.shape[-1] != image.shape[-1]:
        raise InputError(
            f"transform {name} must give uint8 images with {shape[-1]} channels, "
            f"got {view.dtype} {list(view.shape)}; remove it, the encoder normalises by itself"
        )
    return view


def build_transform(name: str, args: Spec | None = None, size: tuple[int, int] = ANY_SIZE) -> Any:
    """An albumentations transform by name, or a composition of transforms such as `OneOf`.

    Args:
        name: name of the class.
        args: its arguments; a composition takes `transforms`, a list of `{"name": ..., "args": {...}}`.
        size: height and width for a transform that needs `size` or `height` and `width` and has none in
            `args`.

    Raises:
        InputError: if the name is unknown or an argument is wrong.
    """
    import inspect

    import albumentations

    transform, args = _find_transform(name), dict(args or {})
    _require_finite(name, args)
    if issubclass(transform, albumentations.BaseCompose):
        args["transforms"] = _build_inner(name, args.get("transforms"), size)
    for argument, value in {"size": size, "height": size[0], "width": size[1]}.items():
        parameter = inspect.signature(transform).parameters.get(argument)
        if parameter is not None and parameter.default is parameter.empty:
            args.setdefault(argument, value)
    with warnings.catch_warnings():
        # albumentations only warns about an unknown argument and ignores it.
        warnings.simplefilter("error", UserWarning)
        try:
            return transform(**args)
        # What an argument of a wrong kind raises is up to each transform.
        except Exception as error:
            raise InputError(
                f"args of {name} must be valid, got {show(args)}; {_first_reason(error)}"
            ) from error


def _first_reason(error: Exception) -> str:
    """Why albumentations refuses an argument; it lists every type that the argument could have had."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'][:1]))}: {first['msg']}"
    return show(" ".join(str(error).split()), 300).strip("'\"")


def _require_finite(name: str, args: Spec) -> None:
    """Refuse numbers that are not finite, of which the library takes some.

    Raises:
        InputError: with the argument.
    """
    for argument, value in args.items():
        if argument != "transforms" and not all(map(math.isfinite, _numbers_in(value))):
            raise InputError(f"{argument} of {name} must be finite, got {value}")


def _numbers_in(value: Any) -> list[float]:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else []
    return [value] if isinstance(value, float) else [number for part in inner for number in _numbers_in(part)]


def _find_transform(name: str) -> Any:
    """The class of a name.

    Raises:
        InputError: if no class of that name can be part of a policy.
    """
    import albumentations

    if _is_transform(getattr(albumentations, name, None)):
        return getattr(albumentations, name)
    known = [other for other in dir(albumentations) if _is_transform(getattr(albumentations, other))]
    raise InputError(
        f"transform must be the name of an albumentations transform, got {show(name)}; "
        f"{suggest(name, known, 3)}"
    )


def _is_transform(found: Any) -> bool:
    """Whether it is a class that can be part of a policy."""
    import albumentations

    kinds = (albumentations.BasicTransform, albumentations.BaseCompose)
    is_kind = isinstance(found, type) and issubclass(found, kinds) and found not in kinds
    return is_kind and not issubclass(found, albumentations.Compose)


def _build_inner(name: str, specs: Any, size: tuple[int, int]) -> list[Any]:
    """The transforms inside a composition.

    Raises:
        InputError: if they are not a list of names, each with optional arguments.
    """
    if not isinstance(specs, Sequence) or not specs or not all(isinstance(spec, Mapping) for spec in specs):
        raise InputError(f"transforms of {name} must be a list of {{name, args}}, got {show(specs)}")
    for spec in specs:
        is_named = isinstance(spec.get("name"), str) and spec.keys() <= {"name", "args"}
        if not is_named or not isinstance(spec.get("args") or {}, Mapping):
            raise InputError(
                f"transforms of {name} must have a name and optional args, got {show(dict(spec))}"
            )
    return [build_transform(**spec, size=size) for spec in specs]
