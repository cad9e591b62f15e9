"""Whether a network accepts an image size, and how wide its features are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.weights import shorten_error

# Networks reject a size with whatever fails first.
REJECTIONS = (ArithmeticError, AssertionError, RuntimeError, ValueError)


@contextmanager
def refuse_image_size(name: str, image_size: int | None) -> Iterator[None]:
    """Report that a network cannot be built or run as an image size that does not suit it."""
    try:
        yield
    except REJECTIONS as error:
        raise InputError(
            f"data_prep.image_size must suit {name}, got {image_size} ({shorten_error(error)}); "
            "choose another size or stage1.backbone"
        ) from error


@torch.no_grad()
def count_features(network: nn.Module, name: str, num_channels: int, image_size: int) -> int:
    """The feature width of a network; its mode is unchanged.

    Raises:
        InputError: if the images are too small, or the output is not one row of features per image.
    """
    was_training = network.training
    with refuse_image_size(name, image_size):
        features = network.eval()(torch.zeros(1, num_channels, image_size, image_size))
    network.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"stage1.backbone.name must be a network that gives one row per image, got {name} with {shape}"
        )
    return features.shape[1]
