"""A convolutional network behind a first layer that whitens patches, for results within minutes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

# Keeps the outputs of a linear layer behind it small at first.
_SCALE = 1 / 9
# Of batch statistics in the running ones: in a training of a few hundred steps, those of long ago are wrong.
_MOMENTUM = 0.4


class PatchWhitening(nn.Module):
    """Responses to the principal directions of patches and to their opposites, each of about unit variance.

    The kernels are no parameters: `core.models.whitening` sets them by images, and training leaves them. Only
    their thresholds are learned.

    Args:
        num_channels: channels of the input.
        patch_size: height and width of a patch, in pixels.
        stride: pixels from one patch to the next.
    """

    weight: Tensor

    def __init__(self, num_channels: int, patch_size: int, stride: int):
        super().__init__()
        self.stride = stride
        num_pixels = num_channels * patch_size**2
        # Without images to set them by, random directions.
        directions = torch.linalg.qr(torch.randn(num_pixels, num_pixels))[0]
        self.register_buffer("weight", torch.empty(2 * num_pixels, num_channels, patch_size, patch_size))
        self.bias = nn.Parameter(torch.zeros(2 * num_pixels))
        self.set_directions(directions)

    def set_directions(self, directions: Float[Tensor, "pixels pixels"]) -> None:
        """Respond to the rows and to their opposites; a row holds channel by channel, line by line."""
        self.weight.copy_(torch.cat([directions, -directions]).view_as(self.weight))

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch maps h2 w2"]:
        """Responses at each place where a patch fits."""
        return functional.conv2d(images, self.weight, self.bias, self.stride)


class WhitenedCnn(nn.Module):
    """Whitened patches, three blocks of two convolutions, and the largest value of each map.

    Each block begins with a convolution and halves the resolution. Kernels start as the identity as far as
    their channels go, batch-norm has a bias but no gain.

    Args:
        widths: channels of the blocks.
        num_channels: channels of the input.
        stem: `small_image` sees overlapping patches of 2 pixels, `imagenet` a grid of patches of 4.

    Source:
        The network of Jordan 2024, arXiv:2404.00498, section 3, with ReLU in place of GELU, and with the
        largest value over all of the last map, so that images may have any size.
    """

    def __init__(self, widths: tuple[int, ...], num_channels: int = 3, stem: str = "small_image"):
        super().__init__()
        patch_size, stride = (2, 1) if stem == "small_image" else (4, 4)
        self.stem = PatchWhitening(num_channels, patch_size, stride)
        before = (len(self.stem.weight), *widths)
        self.blocks = nn.Sequential(
            *(_block(width_in, width) for width_in, width in zip(before, widths, strict=False))
        )

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch features"]:
        """Features, as many as the last block has channels."""
        features: Tensor = self.blocks(functional.relu(self.stem(images))).amax(dim=(2, 3))
        return _SCALE * features


class _UnscaledNorm(nn.BatchNorm2d):
    """Batch-norm with a bias and without a gain, which the next layer makes up for."""

    def __init__(self, width: int):
        super().__init__(width, momentum=_MOMENTUM)
        # Ones that are not trained: a bias without a gain is a case that few kernels know.
        del self.weight
        self.register_buffer("weight", torch.ones(width))


def _block(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(width_in, width),
        nn.MaxPool2d(2),
        _UnscaledNorm(width),
        nn.ReLU(inplace=True),
        _convolution(width, width),
        _UnscaledNorm(width),
        nn.ReLU(inplace=True),
    )


def _convolution(width_in: int, width: int) -> nn.Conv2d:
    conv = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:width_in])
    return conv
