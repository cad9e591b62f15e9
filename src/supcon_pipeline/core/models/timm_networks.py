"""timm networks without their classifier."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.drop_path import no_drop_path
from supcon_pipeline.core.models.image_size import refuse_image_size
from supcon_pipeline.core.models.stems import fit_stem, has_fitted_stem, no_small_stem
from supcon_pipeline.core.models.weight_files import State, read_state
from supcon_pipeline.core.models.weights import load_state, log_classifier, misfit, shorten_error

TIMM = "timm/"


def timm_names(name: str) -> list[str]:
    """The models of timm, with our prefix; those with published weights if `name` has a tag."""
    import timm

    # A dot is followed by a tag, which selects among the published weights.
    return [TIMM + model for model in (timm.list_pretrained() if "." in name else timm.list_models())]


def build_timm(
    name: str,
    stem: str,
    num_channels: int,
    pretrained: bool,
    weights: str | None,
    image_size: int | None,
    drop_path: float | None,
) -> tuple[nn.Module, int]:
    """The network and the image size that it is made for."""
    import timm

    model = name.removeprefix(TIMM)
    config = timm.get_pretrained_cfg(model) or timm.models.PretrainedCfg()
    if stem == "small_image" and config.fixed_input_size:
        raise no_small_stem(name, "it is made for one image size")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": num_channels}
    if image_size and config.fixed_input_size:
        options["img_size"] = image_size
    if drop_path is not None:
        _require_drop_path(name, drop_path)
        options["drop_path_rate"] = drop_path
    first_conv, is_fitted, state = _listed(config.first_conv), False, {}
    if weights:
        # Without memory for its weights: for names and shapes alone.
        with torch.device("meta"), refuse_image_size(name, image_size):
            bare = timm.create_model(model, **options)
        given = read_state(weights, bare.state_dict())
        state = _without_classifier(bare, given, _listed(config.classifier))
        is_fitted = stem == "small_image" and has_fitted_stem(bare, first_conv, num_channels, state)
    if state and not is_fitted:
        network = _load_timm(name, state, config, options)
    elif pretrained:
        network = _download_timm(name, config, options)
    else:
        with refuse_image_size(name, image_size):
            network = timm.create_model(model, **options)
    if stem == "small_image":
        is_loaded = pretrained or weights is not None
        fit_stem(network, name, first_conv, num_channels, True, is_loaded and not is_fitted)
    if is_fitted:
        load_state(network, name, state, head=())
    return network, config.input_size[-1]


def _require_drop_path(name: str, rate: float) -> None:
    """Refuse a network that has no drop path, whatever its function does with the option."""
    import timm
    from timm.layers.drop import DropPath

    try:
        # Without memory for its weights.
        with torch.device("meta"):
            network = timm.create_model(name.removeprefix(TIMM), num_classes=0, drop_path_rate=0.5)
    except TypeError as error:
        raise no_drop_path(name, rate) from error
    if not any(isinstance(module, DropPath) for module in network.modules()):
        raise no_drop_path(name, rate)


def _load_timm(name: str, state: State, config: Any, options: dict[str, Any]) -> nn.Module:
    """The timm network with given weights, which timm renames, resizes and adapts like its own."""
    import timm

    # timm loads loosely if it drops a classifier itself; with none to drop, it loads strictly.
    overlay = {"state_dict": state, "classifier": None, "label_offset": 0}
    try:
        network: nn.Module = timm.create_model(
            name.removeprefix(TIMM), pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    # Names of another network fail wherever timm translates them.
    except Exception as error:
        raise misfit(name, error) from error
    # timm keeps the overlay on the network, so that every copy would hold the weights a second time.
    network.pretrained_cfg = network.default_cfg = config.to_dict()
    return network


def _without_classifier(network: nn.Module, state: State, classifiers: Sequence[str]) -> State:
    """The state without the classifiers and their other layers that are not in the network."""
    # Some classifiers have a norm or other layer before the linear one; other norms are the network's.
    wanted = network.state_dict()
    heads = tuple(f"{classifier.rpartition('.')[0] or classifier}." for classifier in classifiers)
    left_out = [key for key in state if key not in wanted and key.startswith(heads)]
    log_classifier(left_out)
    return {key: value for key, value in state.items() if key not in left_out}


def _download_timm(name: str, config: Any, options: dict[str, Any]) -> nn.Module:
    import timm

    if not config.has_weights:
        raise InputError(
            f"stage1.backbone.pretrained must be false for {name}, got True, but timm has no weights for it; "
            "use --params stage1.backbone.pretrained=false"
        )
    try:
        return timm.create_model(name.removeprefix(TIMM), pretrained=True, **options)
    except OSError as error:
        file = config.hf_hub_filename or "model.safetensors"
        source = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        raise InputError(
            f"stage1.backbone.pretrained must find the file {file} of {source}, got {shorten_error(error)}; "
            "download it and use --params stage1.backbone.pretrained=false,stage1.backbone.weights=<its path>"
        ) from error


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
