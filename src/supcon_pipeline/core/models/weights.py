"""Pretrained weights, published or from a file, for a network without its head."""

import re
import textwrap
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supcon_pipeline.core.messages import InputError

State = dict[str, Tensor]
# torchvision's DenseNet files are older than its names of the layers (torchvision.models.densenet).
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")


def read_state(path: str) -> State:
    """The state dict in a file.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote.

    Raises:
        InputError: if the file is missing or does not hold a state dict.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"stage1.backbone.weights must be an existing file, got {path!r}")
    try:
        state = _read_tensors(file)
    # A pickle can fail in many ways: truncated, not a pickle, or holding a class.
    except Exception as error:
        raise InputError(
            f"stage1.backbone.weights must be a .safetensors or .pth file of tensors, got {path!r}; "
            f"{shorten_error(error)}"
        ) from error
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(
            f"stage1.backbone.weights must hold a state dict, tensors by name, got {path!r}; "
            "save it with torch.save(model.state_dict(), path)"
        )
    return state


def download_state(name: str) -> State:
    """The weights that torchvision publishes for a network, from torch hub's cache or downloaded.

    Raises:
        InputError: if neither works.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True)
        return state
    except OSError as error:
        file, cache = Path(weights.url).name, Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"stage1.backbone.pretrained must find the file {file}, got {shorten_error(error)}; download "
            f"{weights.url} into {cache}, or use --params "
            "stage1.backbone.pretrained=false,stage1.backbone.weights=<its path>"
        ) from error


def load_state(network: nn.Module, name: str, state: State, head: Sequence[str]) -> None:
    """Load torchvision's weights into a network without its head, strictly.

    Args:
        network: without its head.
        name: name of the network, for errors.
        state: as torchvision saves it, with or without the head.
        head: prefixes of entries that are ignored if present.

    Raises:
        InputError: if entries are missing, unexpected or of another shape, listing them.
    """
    wanted, state = network.state_dict(), with_versions(state, network)
    for key in list(state):
        new = _OLD_DENSENET.sub(r"\1\2", key)
        if new not in wanted and new.startswith(tuple(head)):
            del state[key]
        elif new != key:
            state[new] = state.pop(key)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(name, error) from error


def with_versions(state: State, network: nn.Module) -> State:
    """A copy of a state with the versions of the layers that wrote it, by which they read older states.

    Some layers (torchvision's MNASNet) reject a state without versions, which safetensors cannot hold. The
    versions of the network are assumed unless batch-norm's counters are missing, as in older states.
    """
    copy: Any = OrderedDict(state)
    if hasattr(state, "_metadata"):
        copy._metadata = state._metadata
    elif any(name.endswith("num_batches_tracked") for name in state):
        copy._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    return copy  # type: ignore[no-any-return]


def misfit(name: str, error: Exception) -> InputError:
    """The error for weights that belong to another network."""
    return InputError(
        f"stage1.backbone.weights must fit {name}, got other entries ({shorten_error(error)}); "
        "set stage1.backbone.name to the network of the file"
    )


def shorten_error(error: Exception) -> str:
    """The message of an error, on one line of at most 600 characters."""
    return textwrap.shorten(str(error), 600, placeholder=" ...")


def _read_tensors(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)
