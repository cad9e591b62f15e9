"""Files of weights as other programs write them: plain, under a key, with a prefix before each name."""

import argparse
import json
import logging
import pickle
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supcon_pipeline.core.checksums import is_unchanged
from supcon_pipeline.core.messages import InputError, name_some

logger = logging.getLogger(__name__)
State = dict[str, Tensor]
SETTING = "stage1.backbone.weights"
_REMEDY = "save the tensors alone where they were made: torch.save(model.state_dict(), 'weights.pth')"
# Where a checkpoint keeps the weights, the best first: an average before what it is an average of.
_KEYS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "teacher"),
    *("state_dict", "model_state_dict", "model_state", "model"),
    *("student", "net", "network", "encoder", "backbone"),
)
# Of two networks in one file, the one that is a slower copy of the other for its training alone.
_COPIES = ("student", "encoder_k", "momentum", "target")
# What wraps a network whatever its names are.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
# Of weights that a `config.json` is beside.
_BESIDE_CONFIG = ("model.safetensors", "pytorch_model.bin")
# Beside the weights, often: arguments of the program and numbers; none of these runs code.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read_state(path: str, wanted: Collection[str]) -> State:
    """The state dict in a file, with names as the network has them.

    Weights are found under a known key (`state_dict`, `model`, ...), and a prefix that stands before every
    name of the network (`module.`, `encoder.backbone.`, ...) is taken off. What else the file holds is left
    out, and the log says so.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote.
        wanted: the names that the network has.

    Raises:
        InputError: if the file is missing, has not the checksum beside it, does not hold a state dict, cannot
            be read without running code of its own, holds several such networks, or numbers that are not
            finite.
    """
    keys, state = _find_tensors(_read_content(path), path)
    prefix = _find_prefix(state, wanted, path)
    found: Any = state
    if prefix:
        found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    _require_finite(found, path)
    left_out = [name for name in state if not name.startswith(prefix)]
    if keys or prefix:
        place = "".join(f"[{key!r}]" for key in keys) + (f" after {prefix!r}" if prefix else "")
        others = f"; left out: {name_some(left_out, 10)}" if left_out else ""
        logger.info("Weights are the %d tensors of %s%s%s", len(found), path, place, others)
    return found  # type: ignore[no-any-return]


def _require_finite(state: State, path: str) -> None:
    floating = {name: value for name, value in state.items() if value.is_floating_point()}
    # `isfinite` knows no floats of 8 bits.
    broken = [name for name, value in floating.items() if not value.float().isfinite().all()]
    if broken:
        raise InputError(
            f"{SETTING} must be finite, got {path!r} with nan or inf in {name_some(broken)}; "
            "use a checkpoint of before that training diverged"
        )


def read_statistics(path: str, architecture: str) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of each channel by which the weights in a file expect images to be normalised.

    Those of the encoder of a run are among them; for others, a `config.json` says it, which timm and the
    export of this project write beside them.

    Args:
        path: as for `read_state`.
        architecture: of the network, as the library names it that has it.

    Returns:
        None where they are not known.

    Raises:
        InputError: if the file is missing, or it or the `config.json` has changed or cannot be read.
    """
    _, state = _find_tensors(_read_content(path), path)
    mean, std = (state.get(f"encoder.{name}") for name in ("mean", "std"))
    if mean is not None and std is not None:
        return mean.flatten().tolist(), std.flatten().tolist()
    return _read_config(Path(path).expanduser(), architecture)


def _read_config(weights: Path, architecture: str) -> tuple[list[float], list[float]] | None:
    """The same by what stands beside weights, if it is of that network."""
    file = weights.with_name("config.json")
    if weights.name not in _BESIDE_CONFIG or not file.is_file():
        return None
    _require_unchanged(file)
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(
            f"config.json beside {SETTING} must be JSON, got one that cannot be read in {str(file)!r} "
            f"({error}); restore it from a copy, or remove it to normalise as for the published weights"
        ) from error
    try:
        # With or without the tag of some weights.
        names = {name.partition(".")[0] for name in (config["architecture"], architecture)}
        told = config["pretrained_cfg"] if len(names) == 1 else {}
        return [float(value) for value in told["mean"]], [float(value) for value in told["std"]]
    # It is that of something else.
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _require_unchanged(file: Path) -> None:
    """Refuse what has changed since the checksum beside it was written, as for artifacts of a run."""
    if not is_unchanged(file):
        raise InputError(
            f"{SETTING} and what is beside it must be as it was saved, got other content in {str(file)!r}; "
            "restore it from a copy, or choose other weights"
        )


def _read_content(path: str) -> Any:
    """What a file holds, without running code of its own."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{SETTING} must be an existing file, got {path!r}")
    _require_unchanged(file)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    # A file can fail in many ways: truncated, not a pickle, or holding a class.
    except Exception as error:
        foreign = re.findall(r"(?:GLOBAL|class) [`']?([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and foreign:
            raise InputError(
                f"{SETTING} must hold tensors alone, got {path!r} with a {foreign[0]}, which only its own "
                f"code can read; {_REMEDY}"
            ) from error
        raise InputError(
            f"{SETTING} must be a .safetensors or .pth file of tensors, got {path!r}, which cannot be read "
            f"({_first_sentence(error)}); {_REMEDY}"
        ) from error


def _first_sentence(error: Exception) -> str:
    """Of torch's message: what follows is advice on how to run the code of the file."""
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error) or type(error).__name__
    return " ".join(re.split(r"\. |\n", text.strip())[0].split())[:200]


def _find_tensors(content: Any, path: str) -> tuple[list[str], State]:
    """The tensors by name in a checkpoint, and the keys that lead to them."""
    keys: list[str] = []
    while isinstance(content, dict) and not _is_state(content):
        key = next((key for key in _KEYS if isinstance(content.get(key), dict) and content[key]), None)
        if key is None:
            break
        keys.append(key)
        content = content[key]
    if not _is_state(content):
        entries = content if isinstance(content, dict) else {}
        others = [name for name, value in entries.items() if not isinstance(value, Tensor)]
        names = f" with {name_some(others, 10)}" if others else ""
        raise InputError(f"{SETTING} must hold a state dict, tensors by name, got {path!r}{names}; {_REMEDY}")
    return keys, content


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, dict) and bool(content) and all(isinstance(v, Tensor) for v in content.values())
    )


def _find_prefix(state: State, wanted: Collection[str], path: str) -> str:
    """What stands before the names of the network in a state; empty if nothing does."""
    counts = Counter(prefix for name in state for prefix in _prefixes(name) if name[len(prefix) :] in wanted)
    most = max(counts.values(), default=0)
    # Fewer are chance: layers of one network are named as the network of another.
    if 2 * most <= len(wanted):
        return _wrapper(state)
    if counts[""] == most:
        return ""
    found = [prefix for prefix, count in counts.items() if count == most]
    chosen = [prefix for prefix in found if not any(copy in prefix for copy in _COPIES)] or found
    if len(chosen) > 1:
        raise InputError(
            f"{SETTING} must hold one network, got {path!r} with several, under {name_some(sorted(chosen))}; "
            "save one of them alone, as encoder.safetensors of a run is"
        )
    return chosen[0]


def _prefixes(name: str) -> list[str]:
    """All beginnings of a name that end at a dot, the empty one first."""
    return ["", *(name[: dot.end()] for dot in re.finditer(r"\.", name))]


def _wrapper(state: State) -> str:
    """The known prefixes that all names share, for a file whose names only timm can translate."""
    prefix = ""
    while found := [w for w in _WRAPPERS if all(name.startswith(prefix + w) for name in state)]:
        prefix += found[0]
    return prefix
