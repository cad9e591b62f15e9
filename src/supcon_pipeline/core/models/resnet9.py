"""A small residual network that learns CIFAR-like images in few passes over them."""

from torch import Tensor, nn

# Largest values are large: without it, the first steps of a linear layer behind them overshoot.
_SCALE = 0.125


class ResNet9(nn.Module):
    """Eight convolutions, two of them pairs around which a shortcut leads, and the largest value of each map.

    Three layers double the channels and halve the resolution; each thing in an image is looked for at all
    places, and the best place counts.

    Args:
        width: channels after the first layer.
        num_channels: channels of the input.
        stem: `small_image` keeps the resolution at first, `imagenet` quarters it as in
            He et al. 2015 (arXiv:1512.03385).

    Source:
        The network of Page 2018, "How to train your ResNet", part 4 (https://myrtle.ai), for 32 pixels and 64
        channels, without its linear layer but with the scale of that.
    """

    def __init__(self, width: int, num_channels: int = 3, stem: str = "small_image"):
        super().__init__()
        first: list[nn.Module] = [_layer(num_channels, width)]
        if stem == "imagenet":
            first = [_layer(num_channels, width, stride=2), nn.MaxPool2d(3, 2, padding=1)]
        self.stem = nn.Sequential(*first)
        self.stages = nn.Sequential(
            _stage(width, 2 * width, is_residual=True),
            _stage(2 * width, 4 * width, is_residual=False),
            _stage(4 * width, 8 * width, is_residual=True),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Features `[batch, 8 * width]` of images `[batch, channels, h, w]`."""
        features: Tensor = self.stages(self.stem(images)).amax(dim=(2, 3))
        return _SCALE * features


class _Residual(nn.Module):
    """Two layers and a shortcut around them."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_layer(width, width), _layer(width, width))

    def forward(self, maps: Tensor) -> Tensor:
        summed: Tensor = maps + self.layers(maps)
        return summed


def _stage(width_in: int, width: int, is_residual: bool) -> nn.Sequential:
    parts = [_layer(width_in, width), nn.MaxPool2d(2)]
    return nn.Sequential(*parts, _Residual(width)) if is_residual else nn.Sequential(*parts)


def _layer(width_in: int, width: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
