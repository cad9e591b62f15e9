"""Whether a network takes images of a size, and how wide its features are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.weights import shorten_error


@contextmanager
def refuse_image_size(name: str, image_size: int | None) -> Iterator[None]:
    """Say of a network that cannot be built or run that its images are of the wrong size."""
    try:
        yield
    # Networks refuse a size by whatever goes wrong first.
    except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        raise InputError(f"image_size must suit {name}, got {image_size}; {shorten_error(error)}") from error


@torch.no_grad()
def count_features(network: nn.Module, name: str, num_channels: int, image_size: int) -> int:
    """The width of the features of one image; the network's mode stays as it is.

    Raises:
        InputError: where the images are too small, or the features are not one row for each image.
    """
    was_training = network.training
    with refuse_image_size(name, image_size):
        features = network.eval()(torch.zeros(1, num_channels, image_size, image_size))
    network.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(f"backbone.name must be a network that gives one row per image, got {name}: {shape}")
    return features.shape[1]
