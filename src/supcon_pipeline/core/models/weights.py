"""Pretrained weights for a network without its head."""

import logging
import re
import textwrap
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supcon_pipeline.core.messages import InputError, name_some
from supcon_pipeline.core.models.weight_files import SETTING, State

logger = logging.getLogger(__name__)
# torchvision's DenseNet files are older than its names of the layers (torchvision.models.densenet).
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")


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
    log_classifier(key for key in state if key not in wanted and key.startswith(tuple(head)))
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


def log_classifier(names: Iterable[str]) -> None:
    """Say what of a file is left out as its classifier."""
    if names := list(names):
        logger.info("Weights of the file's classifier are left out: %s", name_some(names, 10))


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
    """The error for weights that belong to another network, with the first names of what differs."""
    differences = " and ".join(_differences(str(error))) or f"of other entries ({shorten_error(error)})"
    return InputError(
        f"{SETTING} must fit {name}, got a file {differences}; "
        "set stage1.backbone.name to the network of the file"
    )


def _differences(message: str) -> list[str]:
    """What torch's message lists, in words: entries that are missing, unexpected and of another shape."""
    found = []
    for words, title in (("without", "Missing"), ("with an unexpected", "Unexpected")):
        listed = re.search(rf"{title} key\(s\) in state_dict: (.*)", message)
        names = re.findall('"(.+?)"', listed[1]) if listed else []
        found += [f"{words} {name_some(names)}"] if names else []
    shapes = re.search(
        r"size mismatch for (\S+): .*?torch.Size\((.*?)\) from.*?torch.Size\((.*?)\)", message, re.DOTALL
    )
    return [*found, *([f"with {shapes[1]} of {shapes[2]} instead of {shapes[3]}"] if shapes else [])]


def shorten_error(error: BaseException) -> str:
    """The message of an error, on one line of at most 600 characters."""
    return textwrap.shorten(str(error), 600, placeholder=" ...")
