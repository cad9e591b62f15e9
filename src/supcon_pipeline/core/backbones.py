"""Backbones: a name to a headless network and its feature width."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

BACKBONES = ("resnet_narrow", "resnet18", "resnet34", "resnet50", "resnet101")
STEMS = ("small_image", "imagenet")


class NarrowResNet(nn.Module):
    """A residual network that a CPU trains in seconds per thousand images.

    One basic block (He et al. 2015, arXiv:1512.03385, Fig. 5 left) per stage. The stem halves the
    resolution and so does every stage but the first, which leaves 2 x 2 of 32 x 32 pixels.

    Args:
        num_channels: channels of the input.
        widths: channels of each stage; the last is the feature width.
        stem_stride: 2 for a quarter of the computation, 1 to keep the resolution.
    """

    def __init__(
        self, num_channels: int = 3, widths: Sequence[int] = (32, 64, 128, 256), stem_stride: int = 2
    ):
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        stem = nn.Conv2d(num_channels, widths[0], 3, stem_stride, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        stages: list[nn.Module] = [BasicBlock(widths[0], widths[0])]
        for width_in, width in pairwise(widths):
            shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, 2, bias=False), nn.BatchNorm2d(width))
            stages.append(BasicBlock(width_in, width, 2, shortcut))
        self.stages = nn.Sequential(*stages)
        self.num_features = widths[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features `[batch, num_features]` of images `[batch, channels, h, w]`."""
        features: Tensor = self.stages(self.stem(images)).mean(dim=(2, 3))
        return features


def build_backbone(name: str, stem: str = "small_image", num_channels: int = 3) -> tuple[nn.Module, int]:
    """A headless network and its feature width.

    Args:
        name: one of `BACKBONES`.
        stem: `small_image` keeps the detail of inputs around 32 pixels (3 x 3 convolution without
            pooling; `resnet_narrow` halves once), `imagenet` divides the resolution by four first.
        num_channels: channels of the input.

    Raises:
        ValueError: where the name or the stem is unknown.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone.name must be one of {', '.join(BACKBONES)}, got {name!r}")
    if stem not in STEMS:
        raise ValueError(f"backbone.stem must be one of {', '.join(STEMS)}, got {stem!r}")
    if name == "resnet_narrow":
        narrow = NarrowResNet(num_channels)
        return narrow, narrow.num_features

    import torchvision

    network = torchvision.models.get_model(name, weights=None)
    num_features = network.fc.in_features
    network.fc = nn.Identity()
    if stem == "small_image":
        network.conv1 = nn.Conv2d(num_channels, 64, 3, 1, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif num_channels != 3:
        network.conv1 = nn.Conv2d(num_channels, 64, 7, 2, padding=3, bias=False)
    return network, num_features
