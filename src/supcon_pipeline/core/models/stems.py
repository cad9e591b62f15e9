"""Stems: the first layers of a network, adapted to small images and to the input channels.

Source: He et al. 2015 (arXiv:1512.03385, section 4.2) begin their networks for 32-pixel images with a 3 x 3
convolution of stride 1 instead of a 7 x 7 one of stride 2 and a max-pool. Here, the same rule holds for any
family: half the stride, no kernel wider than 3, no pooling right after. Patches are halved in width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from supcon_pipeline.core.messages import InputError

STEMS = ("small_image", "imagenet")
# The names that families of torchvision and timm give to the pooling at the end of their stem.
_STEM_POOLS = ("maxpool", "maxpool1", "Pool1", "features.pool0", "stem.pool")
# Halving wider patches would multiply the tokens of a network made for few.
_WIDEST_PATCH = 4


def first_convolution(network: nn.Module) -> str:
    """The name of the first convolution in module order, which is the input of torchvision's networks."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return str(name)
    raise ValueError(f"network must have a convolution, got {type(network).__name__}")


def fit_stem(
    network: nn.Module,
    name: str,
    conv_names: Sequence[str],
    num_channels: int,
    is_small: bool,
    keep_weights: bool,
) -> None:
    """Adapt a network to other input channels and to small images, in place.

    Args:
        network: changed in place.
        name: name of the network, for errors.
        conv_names: its input convolutions; a network with several has no small stem.
        num_channels: input channels afterwards.
        is_small: whether images are around 32 pixels.
        keep_weights: whether a kernel of another shape is made from the old one: summed (one channel) or
            repeated and rescaled as in timm, and resampled. Otherwise it is initialised anew.

    Raises:
        InputError: if no small stem is defined for the network.
    """
    conv = _modules(network).get(conv_names[0]) if len(conv_names) == 1 else None
    if not isinstance(conv, nn.Conv2d):
        raise no_small_stem(name, "its input is not one convolution")
    before = conv.weight.shape
    if num_channels != conv.in_channels:
        _fit_channels(conv, num_channels, keep_weights)
    if is_small:
        _fit_to_small_images(conv, name)
        _remove_stem_pool(network)
    if conv.weight.shape != before and not keep_weights:
        conv.reset_parameters()


def has_fitted_stem(
    network: nn.Module, conv_names: Sequence[str], num_channels: int, state: Mapping[str, Tensor]
) -> bool:
    """Whether weights are of a network that `fit_stem` has adapted, as in the files of this project."""
    name = f"{conv_names[0]}.weight" if len(conv_names) == 1 else ""
    given, own = state.get(name), dict(network.named_parameters()).get(name)
    if given is None or own is None:
        return False
    return given.shape[2:] != own.shape[2:] or given.shape[1] == num_channels != own.shape[1]


def no_small_stem(name: str, reason: str) -> InputError:
    """The error for a network without a `small_image` stem."""
    return InputError(
        f"stage1.backbone.stem must be imagenet for {name}, got 'small_image', but {reason}; "
        "use --params stage1.backbone.stem=imagenet or a convolutional network"
    )


def _fit_channels(conv: nn.Conv2d, num_channels: int, keep_weights: bool) -> None:
    weight = conv.weight.detach()
    if keep_weights:
        from timm.models import adapt_input_conv

        weight = adapt_input_conv(num_channels, weight, base_chans=conv.in_channels)
    else:
        weight = weight.new_empty(len(weight), num_channels, *weight.shape[2:])
    conv.in_channels, conv.weight = num_channels, nn.Parameter(weight)


def _fit_to_small_images(conv: nn.Conv2d, name: str) -> None:
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    is_patches = kernel == stride > 1
    if is_patches and kernel > _WIDEST_PATCH:
        raise no_small_stem(name, f"its patches are {kernel} pixels wide")
    half = max(1, stride // 2)
    conv.stride = (half, half)
    if is_patches or kernel > 3:
        _shrink_kernel(conv, half if is_patches else 3)


def _shrink_kernel(conv: nn.Conv2d, size: int) -> None:
    # Keeps the sum of a kernel, its response to a uniform area.
    scale = conv.weight[0, 0].numel() / size**2
    conv.weight = nn.Parameter(functional.adaptive_avg_pool2d(conv.weight.detach(), size) * scale)
    conv.kernel_size = (size, size)
    conv.padding = (size // 2, size // 2) if size % 2 else (0, 0)


def _remove_stem_pool(network: nn.Module) -> None:
    modules = _modules(network)
    for name in _STEM_POOLS:
        # In some timm stems, this name is a convolution or a pool of stride 1, which stay.
        pool = modules.get(name)
        if pool is None or getattr(pool, "stride", None) == 1 or any(True for _ in pool.parameters()):
            continue
        network.set_submodule(name, nn.Identity())


def _modules(network: nn.Module) -> dict[str, Any]:
    return dict(network.named_modules())
