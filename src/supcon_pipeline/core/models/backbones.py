"""Backbones: headless networks by name, with their feature width."""

from statistics import fmean

from torch import nn

from supcon_pipeline.core.messages import InputError, suggest
from supcon_pipeline.core.models.image_size import count_features
from supcon_pipeline.core.models.own_networks import OWN, build_own
from supcon_pipeline.core.models.stems import STEMS
from supcon_pipeline.core.models.timm_networks import TIMM, build_timm, timm_names
from supcon_pipeline.core.models.torchvision_networks import (
    RENORMALISING,
    build_torchvision,
    torchvision_names,
)

# Sizes to try a network of any size on.
_SMALL_IMAGE, _PHOTOGRAPH = 32, 224


def require_backbone(name: str) -> None:
    """Check that a backbone exists; imports only the library that would have it.

    Raises:
        InputError: if there is none, with the nearest names. The message begins with `must`, for the caller
            to put the name of the parameter in front.
    """
    if name in OWN:
        return
    names = timm_names(name) if name.startswith(TIMM) else [*OWN, *torchvision_names()]
    if name not in names:
        raise InputError(
            f"must be one of {', '.join(OWN)}, torchvision's classifiers, or {TIMM}<one of timm's models>, "
            f"got {name!r}; {suggest(name, names, 3)}"
        )


def build_backbone(
    name: str,
    stem: str = "small_image",
    num_channels: int = 3,
    pretrained: bool = False,
    weights: str | None = None,
    image_size: int | None = None,
    drop_path: float | None = None,
) -> tuple[nn.Module, int]:
    """A headless network with output `[batch, num_features]`, and its feature width.

    Args:
        name: a network of this project (`core.models.own_networks`), a torchvision classification model, or
            `timm/<model>`.
        stem: `small_image` keeps the detail of inputs around 32 pixels (`core.models.stems`), `imagenet`
            is the network as published.
        num_channels: input channels; pretrained weights for three are summed or rescaled.
        pretrained: whether to start from weights published by torchvision or timm.
        weights: a file to start from instead, as torchvision or timm would save the network; classifier
            entries are ignored, all others must fit.
        image_size: height and width of the input. Networks of a fixed size are built for it; all are tried
            on it. Defaults to 32 with the `small_image` stem, else to the size the network is made for.
        drop_path: probability that the last residual branch is left out in training, rising to it from 0 in
            the first; None for what the network has by default.

    Raises:
        InputError: if a name is unknown, the stem is not defined for the network, the weights are
            missing or do not fit, the images are too small, or the network has no drop path.
    """
    try:
        require_backbone(name)
    except InputError as error:
        raise InputError(f"stage1.backbone.name {error}") from error
    if stem not in STEMS:
        raise InputError(f"stage1.backbone.stem must be a known stem, got {stem!r}; {suggest(stem, STEMS)}")
    if pretrained and weights:
        raise InputError(
            f"stage1.backbone.pretrained must be false if stage1.backbone.weights is set, got {weights!r}; "
            "use --params stage1.backbone.pretrained=false"
        )
    network, native_size = _build(name, stem, num_channels, pretrained, weights, image_size, drop_path)
    size = image_size or (_SMALL_IMAGE if stem == "small_image" else native_size)
    return network, count_features(network, f"{name} with the {stem} stem", num_channels, size)


def build_skeleton(name: str) -> nn.Module:
    """A headless network as published, without memory for its weights: for names and shapes alone."""
    import torch

    # RegNets of torchvision compute their widths by tensors, which needs memory.
    with torch.device("cpu" if name.startswith("regnet_") else "meta"):
        return _build(name, "imagenet", 3, False, None, None, None)[0]


def _build(
    name: str,
    stem: str,
    num_channels: int,
    pretrained: bool,
    weights: str | None,
    image_size: int | None,
    drop_path: float | None,
) -> tuple[nn.Module, int]:
    """The network and the image size that it is made for."""
    if name in OWN:
        return build_own(name, stem, num_channels, pretrained, weights, drop_path), _PHOTOGRAPH
    build = build_timm if name.startswith(TIMM) else build_torchvision
    return build(name, stem, num_channels, pretrained, weights, image_size, drop_path)


def has_published_weights(name: str) -> bool:
    """Whether torchvision or timm publishes weights for a network."""
    if not name.startswith(TIMM):
        return name not in OWN
    import timm

    config = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    return config is not None and bool(config.has_weights)


def published_statistics(name: str, num_channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel, from 0 to 1, that a network's published weights expect.

    For one channel, whose kernels are sums over three, both are averaged over the three. None if no weights
    are published.
    """
    if name in OWN:
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
