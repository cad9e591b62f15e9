"""Backbones: a name to a headless network and its feature width."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from supcon_pipeline.core.stems import STEMS, first_convolution, fit_stem, no_small_stem
from supcon_pipeline.core.weights import (
    download_state,
    load_state,
    misfit,
    read_state,
    shorten_error,
)

NARROW = "resnet_narrow"
TIMM = "timm/"
_NARROW_WIDTHS = (32, 64, 128, 256)

# Networks of torchvision that take the normalisation of the others and change it to their own inside.
_RENORMALISING = ("googlenet", "inception_v3")
# Families of torchvision that are built for one image size.
_FIXED_SIZE = ("vit_", "maxvit_")
_SMALL_IMAGE = 32
_IMAGENET_IMAGE = 224


class NarrowResNet(nn.Module):
    """A residual network that a CPU trains in seconds per thousand images.

    One basic block (He et al. 2015, arXiv:1512.03385, Fig. 5 left) per stage. Every stage but the first
    halves the resolution, which with the `small_image` stem leaves 2 x 2 of 32 x 32 pixels.

    Args:
        num_channels: channels of the input.
        stem: `small_image` halves the resolution once, `imagenet` again by the max-pool of that paper's stem.
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
        self.num_features = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features `[batch, num_features]` of images `[batch, channels, h, w]`."""
        features: Tensor = self.stages(self.stem(images)).mean(dim=(2, 3))
        return features


def require_backbone(name: str) -> None:
    """Make sure that a backbone of that name exists; imports the library that has it, and no other.

    Raises:
        ValueError: with the nearest names where there is none. The message begins with `must`, for the
            caller to say what must.
    """
    if name == NARROW:
        return
    import difflib

    names = _timm_names(name) if name.startswith(TIMM) else [NARROW, *_torchvision_names()]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=3)
        remedy = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise ValueError(
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
        stem: `small_image` keeps the detail of inputs around 32 pixels (`core.stems`), `imagenet` is the
            network as published; that of `resnet_narrow` halves once or twice.
        num_channels: channels of the input; pretrained weights of three are summed or rescaled.
        pretrained: whether to start from the weights that torchvision or timm publish.
        weights: a file to start from instead, as torchvision or timm would save the network; entries of
            the classifier are not used, all others must fit.
        image_size: height and width of the input. Networks of a fixed size are built for it; all are
            tried on it. Without it, the size that the network was made for.

    Raises:
        ValueError: where a name is unknown, the stem is not defined for the network, the weights are
            missing or do not fit, or the images are too small.
    """
    try:
        require_backbone(name)
    except ValueError as error:
        raise ValueError(f"backbone.name {error}") from error
    if stem not in STEMS:
        raise ValueError(f"backbone.stem must be one of {', '.join(STEMS)}, got {stem!r}")
    if pretrained and weights:
        raise ValueError(f"backbone.pretrained must be false where backbone.weights is set, got {weights!r}")
    if name == NARROW:
        return _build_narrow(stem, num_channels, pretrained, weights)
    build = _build_timm if name.startswith(TIMM) else _build_torchvision
    network, native_size = build(name, stem, num_channels, pretrained, weights, image_size)
    size = image_size or (_SMALL_IMAGE if stem == "small_image" else native_size)
    return network, _count_features(network, f"{name} with the {stem} stem", num_channels, size)


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
    return ([0.5], [0.5]) if name in _RENORMALISING else ([fmean(given.mean)], [fmean(given.std)])


def _torchvision_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _timm_names(name: str) -> list[str]:
    import timm

    # With a dot the name has a tag, which says which of the published weights.
    return [TIMM + model for model in (timm.list_pretrained() if "." in name else timm.list_models())]


def _build_narrow(
    stem: str, num_channels: int, pretrained: bool, weights: str | None
) -> tuple[nn.Module, int]:
    if pretrained:
        raise ValueError(
            f"backbone.pretrained must be false for {NARROW}, got True; nobody publishes weights"
        )
    network = NarrowResNet(num_channels, stem)
    if weights:
        load_state(network, NARROW, read_state(weights), head=())
    return network, network.num_features


def _build_torchvision(
    name: str, stem: str, num_channels: int, pretrained: bool, weights: str | None, image_size: int | None
) -> tuple[nn.Module, int]:
    """The network and the image size that it was made for."""
    import torchvision

    if stem == "small_image" and name.startswith(_FIXED_SIZE):
        raise no_small_stem(name, "it is made for one image size")
    options = _torchvision_options(name, num_channels, image_size)
    with _refuse_image_size(name, image_size):
        network = torchvision.models.get_model(name, weights=None, **options)
    head = _remove_head(network)
    is_loaded = pretrained or weights is not None
    if is_loaded:
        state = read_state(weights) if weights else download_state(name)
        load_state(network, name, _resize_positions(network, state), (f"{head}.", "aux", "AuxLogits."))
    is_small = stem == "small_image"
    fit_stem(network, name, [first_convolution(network)], num_channels, is_small, is_loaded)
    if is_small and name.startswith(("vgg", "alexnet")):
        # Theirs lays 7 x 7 places side by side; of a small image these are copies of one another.
        network.avgpool = nn.AdaptiveAvgPool2d(1)
    return network, _IMAGENET_IMAGE


def _torchvision_options(name: str, num_channels: int, image_size: int | None) -> dict[str, Any]:
    if name in _RENORMALISING:
        # It is part of the network, so that a network rebuilt without the download has it too. It is written
        # for three channels.
        return {"aux_logits": False, "init_weights": True, "transform_input": num_channels == 3}
    if image_size and name.startswith("vit_"):
        return {"image_size": image_size}
    if image_size and name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _remove_head(network: nn.Module) -> str:
    """Replace the classifier by what it does before its first dropout or linear layer; gives its name."""
    name = next(name for name in ("fc", "classifier", "heads", "head") if hasattr(network, name))
    head = getattr(network, name)
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    kept = list(takewhile(lambda layer: not isinstance(layer, nn.Dropout | nn.Linear), layers))
    if any(isinstance(layer, nn.Conv2d) for layer in layers):
        # SqueezeNet classifies by a convolution, and pools after it.
        kept = [nn.AdaptiveAvgPool2d(1)]
    setattr(network, name, nn.Sequential(*kept) if kept else nn.Identity())
    if hasattr(network, "dropout"):
        network.dropout = nn.Identity()
    return name


def _resize_positions(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state, with the positions of a vision transformer interpolated to the network's image size."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    if not isinstance(network, VisionTransformer) or "encoder.pos_embedding" not in state:
        return state
    resized: dict[str, Tensor] = interpolate_embeddings(network.image_size, network.patch_size, state)
    return resized


def _build_timm(
    name: str, stem: str, num_channels: int, pretrained: bool, weights: str | None, image_size: int | None
) -> tuple[nn.Module, int]:
    """The network and the image size that it was made for."""
    import timm

    model = name.removeprefix(TIMM)
    config = timm.get_pretrained_cfg(model) or timm.models.PretrainedCfg()
    if stem == "small_image" and config.fixed_input_size:
        raise no_small_stem(name, "it is made for one image size")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": num_channels}
    if image_size and config.fixed_input_size:
        options["img_size"] = image_size
    if weights:
        network = _load_timm(name, read_state(weights), config, options)
    elif pretrained:
        network = _download_timm(name, config, options)
    else:
        with _refuse_image_size(name, image_size):
            network = timm.create_model(model, **options)
    if stem == "small_image":
        is_loaded = pretrained or weights is not None
        fit_stem(network, name, _listed(config.first_conv), num_channels, True, is_loaded)
    return network, config.input_size[-1]


def _load_timm(name: str, state: dict[str, Tensor], config: Any, options: dict[str, Any]) -> nn.Module:
    """The network of timm with given weights; timm renames, resizes and adapts them as it does its own."""
    import timm

    entries = _without_classifier(name, state, _listed(config.classifier), options)
    # timm loads loosely where it drops a classifier itself; told of none, it loads strictly.
    overlay = {"state_dict": entries, "classifier": None, "label_offset": 0}
    try:
        network: nn.Module = timm.create_model(
            name.removeprefix(TIMM), pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    except RuntimeError as error:
        raise misfit(name, error) from error
    # timm leaves the overlay on the network, where every copy of it would hold the weights once more.
    network.pretrained_cfg = network.default_cfg = config.to_dict()
    return network


def _without_classifier(
    name: str, state: dict[str, Tensor], classifiers: Sequence[str], options: dict[str, Any]
) -> dict[str, Tensor]:
    """The state without what is beside the linear layers of the classifiers and not in the network."""
    import timm

    # Some have a norm or another layer before the linear one; of others the norm belongs to the network.
    with torch.device("meta"):
        wanted = timm.create_model(name.removeprefix(TIMM), **options).state_dict()
    heads = tuple(f"{classifier.rpartition('.')[0] or classifier}." for classifier in classifiers)
    return {key: value for key, value in state.items() if key in wanted or not key.startswith(heads)}


def _download_timm(name: str, config: Any, options: dict[str, Any]) -> nn.Module:
    import timm

    if not config.has_weights:
        raise ValueError(f"backbone.pretrained must be false for {name}, got True; timm has no weights of it")
    try:
        return timm.create_model(name.removeprefix(TIMM), pretrained=True, **options)
    except OSError as error:
        file = config.hf_hub_filename or "model.safetensors"
        source = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        raise ValueError(
            f"backbone.pretrained must find the file {file} of {source}, got {shorten_error(error)}; "
            "fetch it and set backbone.weights to its path"
        ) from error


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


@contextmanager
def _refuse_image_size(name: str, image_size: int | None) -> Iterator[None]:
    """Say of a network that cannot be built or run that its images are of the wrong size."""
    try:
        yield
    # Networks refuse a size by whatever goes wrong first.
    except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"image_size must suit {name}, got {image_size}; {shorten_error(error)}") from error


@torch.no_grad()
def _count_features(network: nn.Module, name: str, num_channels: int, image_size: int) -> int:
    """The width of the features of one image; the network's mode stays as it is.

    Raises:
        ValueError: where the images are too small, or the features are not one row for each image.
    """
    was_training = network.training
    with _refuse_image_size(name, image_size):
        features = network.eval()(torch.zeros(1, num_channels, image_size, image_size))
    network.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"backbone.name must be a network that gives one row per image, got {name}: {shape}")
    return features.shape[1]
