"""A narrow residual network for small images and CPUs."""

from itertools import pairwise

from torch import Tensor, nn

_NARROW_WIDTHS = (32, 64, 128, 256)


class NarrowResNet(nn.Module):
    """A residual network that a CPU trains in seconds per thousand images.

    One basic block (He et al. 2015, arXiv:1512.03385, Fig. 5 left) per stage. Every stage but the first
    halves the resolution, so that the `small_image` stem reduces 32 x 32 pixels to 2 x 2.

    Args:
        num_channels: channels of the input.
        stem: `small_image` halves the resolution once, `imagenet` twice, with the max-pool of that paper.
    """

    def __init__(self, num_channels: int = 3, stem: str = "small_image"):
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        width = _NARROW_WIDTHS[0]
        conv = nn.Conv2d(num_channels, width, 3, 2, padding=1, bias=False)
        pools = [nn.MaxPool2d(3, 2, padding=1)] if stem == "imagenet" else []
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True), *pools)
        stages: list[nn.Module] = [BasicBlock(width, width)]
        for width_in, width in pairwise(_NARROW_WIDTHS):
            shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, 2, bias=False), nn.BatchNorm2d(width))
            stages.append(BasicBlock(width_in, width, 2, shortcut))
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features `[batch, 256]` of images `[batch, channels, h, w]`."""
        features: Tensor = self.stages(self.stem(images)).mean(dim=(2, 3))
        return features
