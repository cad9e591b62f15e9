"""Backbones: a name to a headless network and its feature width."""

from statistics import fmean

from torch import nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.image_size import count_features
from supcon_pipeline.core.models.narrow_resnet import NARROW, build_narrow
from supcon_pipeline.core.models.stems import STEMS
from supcon_pipeline.core.models.timm_networks import TIMM, build_timm, timm_names
from supcon_pipeline.core.models.torchvision_networks import (
    RENORMALISING,
    build_torchvision,
    torchvision_names,
)

_SMALL_IMAGE = 32


def require_backbone(name: str) -> None:
    """Make sure that a backbone of that name exists; imports the library that has it, and no other.

    Raises:
        InputError: with the nearest names where there is none. The message begins with `must`, for the
            caller to say what must.
    """
    if name == NARROW:
        return
    import difflib

    names = timm_names(name) if name.startswith(TIMM) else [NARROW, *torchvision_names()]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=3)
        remedy = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise InputError(
            f"must be one of {NARROW}, torchvision's classifiers, or {TIMM}<one of timm's models>, "
            f"got {name!r}{remedy}"
        )


def build_backbone(
    name: str,
    stem: str = "small_image",
    num_channels: int = 3,
    pretrained: bool = False,
    weights: str | None = None,
    image_size: int | None = None,
) -> tuple[nn.Module, int]:
    """A headless network, which gives `[batch, num_features]`, and its feature width.

    Args:
        name: `resnet_narrow`, a classification model of torchvision, or `timm/` and a model of timm.
        stem: `small_image` keeps the detail of inputs around 32 pixels (`core.models.stems`), `imagenet`
            is the network as published; that of `resnet_narrow` halves once or twice.
        num_channels: channels of the input; pretrained weights of three are summed or rescaled.
        pretrained: whether to start from the weights that torchvision or timm publish.
        weights: a file to start from instead, as torchvision or timm would save the network; entries of
            the classifier are not used, all others must fit.
        image_size: height and width of the input. Networks of a fixed size are built for it; all are
            tried on it. Without it, the size that the network was made for.

    Raises:
        InputError: where a name is unknown, the stem is not defined for the network, the weights are
            missing or do not fit, or the images are too small.
    """
    try:
        require_backbone(name)
    except InputError as error:
        raise InputError(f"backbone.name {error}") from error
    if stem not in STEMS:
        raise InputError(f"backbone.stem must be one of {', '.join(STEMS)}, got {stem!r}")
    if pretrained and weights:
        raise InputError(f"backbone.pretrained must be false where backbone.weights is set, got {weights!r}")
    if name == NARROW:
        return build_narrow(stem, num_channels, pretrained, weights)
    build = build_timm if name.startswith(TIMM) else build_torchvision
    network, native_size = build(name, stem, num_channels, pretrained, weights, image_size)
    size = image_size or (_SMALL_IMAGE if stem == "small_image" else native_size)
    return network, count_features(network, f"{name} with the {stem} stem", num_channels, size)


def published_statistics(name: str, num_channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel, from 0 to 1, that published weights of a network expect.

    One channel, whose kernels are the sums of those of three, has the means over the three. None where nobody
    publishes weights of the network.
    """
    if name == NARROW:
        return None
    if name.startswith(TIMM):
        import timm

        given = timm.get_pretrained_cfg(name.removeprefix(TIMM)) or timm.models.PretrainedCfg()
    else:
        from torchvision.models import get_model_weights

        given = get_model_weights(name).DEFAULT.transforms()
    if num_channels == 3:
        return list(given.mean), list(given.std)
    return ([0.5], [0.5]) if name in RENORMALISING else ([fmean(given.mean)], [fmean(given.std)])
