"""The backbone of an encoder as the library that it comes from would save it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from supcon_pipeline.core.inference.export import RESIZE_RULES
from supcon_pipeline.core.models.backbones import build_skeleton
from supcon_pipeline.core.models.encoder import Sight, restore_model
from supcon_pipeline.core.models.own_networks import OWN
from supcon_pipeline.core.models.timm_networks import TIMM
from supcon_pipeline.core.models.torchvision_networks import head_name, torchvision_options
from supcon_pipeline.core.named_tensors import NamedTensors

_POOLS = (nn.Identity, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class NativeWeights:
    """A network with its weights, and what rebuilds it without this project.

    Attributes:
        network: on the CPU, in evaluation mode. Where the encoder has a linear layer behind its backbone,
            that is the classifier of the network, and gives the embedding.
        library: `timm`, `torchvision` or `supcon_pipeline`.
        architecture: its name in the library.
        options: what the library builds it with besides.
        changes: lines of Python that change a `network` of the library into this one.
        preparation: `input_size` (channels, height, width), `mean`, `std` and `crop_pct` of its images.
        has_mirror_average: whether an embedding is the mean of those of an image and its mirror image.
        lacks_neck: whether the linear layer behind the backbone has no place in the network.
        resize: how images come to their size, in sentences.
        card: what stands beside the weights, as Markdown.
    """

    network: nn.Module
    library: str
    architecture: str
    options: dict[str, Any]
    changes: list[str]
    preparation: dict[str, Any]
    has_mirror_average: bool = False
    lacks_neck: bool = False
    resize: str = ""
    card: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """What a `config.json` says; timm writes more into its own."""
        told = {"library": self.library, "model_args": self.options, "changes": self.changes}
        return {"architecture": self.architecture, **told, "pretrained_cfg": self.preparation}


def native_weights(encoder: NamedTensors) -> NativeWeights:
    """The backbone of an encoder, without its projection head."""
    model = encoder.metadata["model"]
    trained: Any = restore_model(encoder).encoder
    # As libraries save it.
    network = trained.backbone.to(memory_format=torch.contiguous_format)
    name, neck = model["backbone"], trained.neck
    size = model["image_size"]
    weights = NativeWeights(
        network,
        _library_of(name),
        name.removeprefix(TIMM),
        {},
        [],
        {
            "input_size": [len(model["mean"]), size, size],
            "mean": list(model["mean"]),
            "std": list(model["std"]),
            "crop_pct": model.get("center_crop", 1.0),
            "interpolation": "bicubic",
        },
        has_mirror_average=bool(model.get("mirror_average")),
        resize=RESIZE_RULES[encoder.metadata["crop"]] + _describe_middle(trained.sight),
    )
    if weights.library == "timm":
        return _of_timm(weights, neck)
    if weights.library == "torchvision":
        return _of_torchvision(weights, neck, model)
    return replace(weights, options={"stem": model["stem"]}, lacks_neck=neck is not None)


def _describe_middle(sight: Sight | None) -> str:
    """What is taken of an image of the size at which images are stored, in sentences."""
    if sight is None:
        return ""
    stored, side, size = sight.stored_size, sight.side, sight.image_size
    return (
        f" That is {stored} x {stored} pixels; of those, the {side} x {side} in the middle are resized to "
        f"{size} x {size}, by linear interpolation over as many pixels as one of the result covers."
    )


def _library_of(name: str) -> str:
    if name in OWN:
        return "supcon_pipeline"
    return "timm" if name.startswith(TIMM) else "torchvision"


def _of_timm(weights: NativeWeights, neck: nn.Linear | None) -> NativeWeights:
    network: Any = weights.network
    changes = list(_stem_changes(network, build_skeleton(f"{TIMM}{weights.architecture}"), False))
    lacks_neck = False
    if neck is not None:
        network.reset_classifier(neck.out_features)
        # Networks of several heads have several classifiers.
        lacks_neck = not isinstance(network.get_classifier(), nn.Linear)
        if lacks_neck:
            network.reset_classifier(0)
        else:
            network.get_classifier().load_state_dict(neck.state_dict())
            network.eval()
    options = {**network._model_args, "num_classes": network.num_classes}
    # In training alone.
    options.pop("drop_path_rate", None)
    return replace(weights, options=options, changes=changes, lacks_neck=lacks_neck)


def _of_torchvision(
    weights: NativeWeights, neck: nn.Linear | None, model: Mapping[str, Any]
) -> NativeWeights:
    network, name = weights.network, weights.architecture
    changes = list(_stem_changes(network, build_skeleton(name), True))
    head = head_name(network)
    kept = getattr(network, head)
    layers = list(kept) if isinstance(kept, nn.Sequential) else []
    is_pool = len(layers) == 1 and isinstance(layers[0], nn.AdaptiveAvgPool2d)
    code = ["torch.nn.AdaptiveAvgPool2d(1)"] if is_pool else [f"*network.{head}[:{len(layers)}]"]
    linear = []
    if neck is not None:
        setattr(network, head, nn.Sequential(*layers, neck) if layers else neck)
        linear = [f"torch.nn.Linear({neck.in_features}, {neck.out_features})"]
    if layers:
        changes.append(f"network.{head} = torch.nn.Sequential({', '.join([*code, *linear])})")
    else:
        changes.append(f"network.{head} = {linear[0] if linear else 'torch.nn.Identity()'}")
    options = torchvision_options(name, len(model["mean"]), model["image_size"])
    return replace(weights, options=options, changes=changes)


def _stem_changes(network: nn.Module, published: nn.Module, has_own_channels: bool) -> Iterator[str]:
    """Lines that change the first layers of a network as published into those of this one."""
    before = dict(published.named_modules())
    for name, module in network.named_modules():
        old, place = before.get(name), f"network.get_submodule({name!r})"
        if isinstance(module, nn.Conv2d) and isinstance(old, nn.Conv2d):
            shapes = [(conv.kernel_size, conv.stride, conv.padding) for conv in (module, old)]
            has_other_channels = has_own_channels and module.in_channels != old.in_channels
            if shapes[0] != shapes[1] or has_other_channels:
                kernel, stride, padding = shapes[0]
                yield f"conv = {place}"
                yield f"conv.kernel_size, conv.stride, conv.padding = {kernel}, {stride}, {padding}"
                yield f"conv.in_channels = {module.in_channels}"
                yield f"conv.weight = torch.nn.Parameter(torch.empty{tuple(module.weight.shape)})"
        elif isinstance(module, _POOLS) and old is not None and repr(module) != repr(old):
            size = "1" if isinstance(module, nn.AdaptiveAvgPool2d) else ""
            yield f"network.set_submodule({name!r}, torch.nn.{type(module).__name__}({size}))"
