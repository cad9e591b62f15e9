"""torchvision networks without their classifier."""

from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from supcon_pipeline.core.models.drop_path import set_drop_path
from supcon_pipeline.core.models.image_size import refuse_image_size
from supcon_pipeline.core.models.stems import first_convolution, fit_stem, has_fitted_stem, no_small_stem
from supcon_pipeline.core.models.weight_files import State, read_state
from supcon_pipeline.core.models.weights import download_state, load_state

# torchvision networks that take images normalised as for the others and renormalise them inside.
RENORMALISING = ("googlenet", "inception_v3")
# torchvision families that are built for one image size.
_FIXED_SIZE = ("vit_", "maxvit_")
_IMAGENET_IMAGE = 224


def torchvision_names() -> list[str]:
    """The classification models of torchvision."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def build_torchvision(
    name: str,
    stem: str,
    num_channels: int,
    pretrained: bool,
    weights: str | None,
    image_size: int | None,
    drop_path: float | None,
) -> tuple[nn.Module, int]:
    """The network and the image size that it is made for."""
    import torchvision

    if stem == "small_image" and name.startswith(_FIXED_SIZE):
        raise no_small_stem(name, "it is made for one image size")
    options = torchvision_options(name, num_channels, image_size)
    with refuse_image_size(name, image_size):
        network = torchvision.models.get_model(name, weights=None, **options)
    if drop_path is not None:
        set_drop_path(network, name, drop_path)
    head = _remove_head(network)
    is_small, conv_name = stem == "small_image", first_convolution(network)
    state: State = {}
    if pretrained or weights:
        state = read_state(weights, network.state_dict()) if weights else download_state(name)
    is_fitted = has_fitted_stem(network, [conv_name], num_channels, state)
    if state and not is_fitted:
        _load(network, name, state, head)
    fit_stem(network, name, [conv_name], num_channels, is_small, bool(state) and not is_fitted)
    if is_fitted:
        _load(network, name, state, head)
    if is_small and name.startswith(("vgg", "alexnet")):
        # Theirs concatenates 7 x 7 positions, which for a small image are copies of one another.
        network.avgpool = nn.AdaptiveAvgPool2d(1)
    return network, _IMAGENET_IMAGE


def torchvision_options(name: str, num_channels: int, image_size: int | None) -> dict[str, Any]:
    """What torchvision builds a network with for images of a size."""
    if name in RENORMALISING:
        # Renormalisation is part of the network, so that one rebuilt without the download has it too. It is
        # written for three channels.
        return {"aux_logits": False, "init_weights": True, "transform_input": num_channels == 3}
    if image_size and name.startswith("vit_"):
        return {"image_size": image_size}
    if image_size and name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def head_name(network: nn.Module) -> str:
    """The name of the classifier, or of what is left of it."""
    return next(name for name in ("fc", "classifier", "heads", "head") if hasattr(network, name))


def _remove_head(network: nn.Module) -> str:
    """Replace the classifier by its layers before the first dropout or linear one; returns its name."""
    name = head_name(network)
    head = getattr(network, name)
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    kept = list(takewhile(lambda layer: not isinstance(layer, nn.Dropout | nn.Linear), layers))
    if any(isinstance(layer, nn.Conv2d) for layer in layers):
        # SqueezeNet classifies by a convolution and pools after it.
        kept = [nn.AdaptiveAvgPool2d(1)]
    setattr(network, name, nn.Sequential(*kept) if kept else nn.Identity())
    if hasattr(network, "dropout"):
        network.dropout = nn.Identity()
    return name


def _load(network: nn.Module, name: str, state: State, head: str) -> None:
    load_state(network, name, _resize_positions(network, state), (f"{head}.", "aux", "AuxLogits."))


def _resize_positions(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state, with position embeddings of a vision transformer interpolated to the image size."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    if not isinstance(network, VisionTransformer) or "encoder.pos_embedding" not in state:
        return state
    resized: dict[str, Tensor] = interpolate_embeddings(network.image_size, network.patch_size, state)
    return resized
