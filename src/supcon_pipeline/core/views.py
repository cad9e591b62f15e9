"""Views of an image: an albumentations policy, described by names and arguments."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

# The library asks the network for a newer version at import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


class ViewPolicy:
    """Random transforms that turn images into views.

    Args:
        transforms: each `{"name": <albumentations class>, "args": {...}}`, applied in order; none gives
            the image itself.
        num_views: views per image, at least 1.

    Raises:
        ValueError: where a name is not an albumentations transform, its arguments are wrong, or
            `num_views` is below 1.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], num_views: int):
        import albumentations

        if num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {num_views}")
        self.num_views = num_views
        self.compose = albumentations.Compose([build_transform(**spec) for spec in transforms])

    def __call__(
        self, images: UInt8[np.ndarray, "batch h w c"], seed: int
    ) -> UInt8[np.ndarray, "batch views h w c"]:
        """The views of a batch; the same seed gives the same views."""
        self.compose.set_random_seed(seed)
        views = [
            [self.compose(image=image)["image"] for _ in range(self.num_views)]
            for image in np.ascontiguousarray(images)
        ]
        return np.stack([np.stack(views_of_image) for views_of_image in views])


def build_transform(name: str, args: Mapping[str, Any] | None = None) -> Any:
    """The albumentations transform of that name.

    Raises:
        ValueError: where the name is unknown or an argument is refused.
    """
    import difflib
    import warnings

    import albumentations

    transform = getattr(albumentations, name, None)
    if not (isinstance(transform, type) and issubclass(transform, albumentations.BasicTransform)):
        nearest = difflib.get_close_matches(name, dir(albumentations), n=3)
        remedy = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        raise ValueError(f"transform must be the name of an albumentations transform, got {name!r}{remedy}")
    with warnings.catch_warnings():
        # An unknown argument is only warned of, and then ignored.
        warnings.simplefilter("error", UserWarning)
        try:
            return transform(**(args or {}))
        except (TypeError, ValueError, UserWarning) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"args of {name} must be its arguments, got {args}; {reason}") from error
