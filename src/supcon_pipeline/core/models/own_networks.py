"""The networks of this project, by name."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.drop_path import no_drop_path
from supcon_pipeline.core.models.narrow_resnet import NarrowResNet
from supcon_pipeline.core.models.resnet9 import ResNet9
from supcon_pipeline.core.models.weight_files import read_state
from supcon_pipeline.core.models.weights import load_state
from supcon_pipeline.core.models.whitened_cnn import WhitenedCnn

# Each takes the number of input channels and the stem.
OWN: Mapping[str, Callable[[int, str], nn.Module]] = {
    "resnet_narrow": NarrowResNet,
    "resnet9": partial(ResNet9, 64),
    "resnet9_half": partial(ResNet9, 32),
    "whitened_cnn": partial(WhitenedCnn, (64, 256, 256)),
}


def build_own(
    name: str, stem: str, num_channels: int, pretrained: bool, weights: str | None, drop_path: float | None
) -> nn.Module:
    """A network of this project.

    Raises:
        InputError: if published weights are requested, or those of a file do not fit, or a drop path.
    """
    if drop_path is not None:
        raise no_drop_path(name, drop_path)
    if pretrained:
        raise InputError(
            f"stage1.backbone.pretrained must be false for {name}, got True, as no weights are published; "
            "use --params stage1.backbone.pretrained=false"
        )
    network = OWN[name](num_channels, stem)
    if weights:
        load_state(network, name, read_state(weights, network.state_dict()), head=())
    return network
