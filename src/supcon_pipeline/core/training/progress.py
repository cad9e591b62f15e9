"""Progress of a training on disk, so that a killed one goes on where it was."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supcon_pipeline.core.atomic import atomic_path

logger = logging.getLogger(__name__)


class ProgressStore:
    """A folder with the progress of trainings, each known by what it is a training of.

    Progress of another training is neither used nor removed.

    Args:
        folder: one subfolder per training.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._opened: list[Path] = []

    def open(self, identity: Mapping[str, Any]) -> "Progress":
        """The progress of the training with this identity: parameters, data and code, as JSON holds them.

        Where there is none but there is some of others, a warning says what differs.
        """
        text = json.dumps(identity, sort_keys=True, indent=2)
        folder = self.folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        if not (folder / "state.pt").exists():
            self._tell_others(identity, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "identity.json") as temporary:
            temporary.write_text(text)
        self._opened.append(folder)
        return Progress(folder)

    def _tell_others(self, identity: Mapping[str, Any], folder: Path) -> None:
        for path in sorted(self.folder.glob("*/identity.json")):
            if path.parent != folder and (path.parent / "state.pt").exists():
                difference = describe_difference(json.loads(path.read_text()), identity)
                logger.warning("Progress in %s is of another training and kept: %s", path.parent, difference)

    def clear(self) -> None:
        """Remove the progress that this store has opened: its training has ended, its artifacts are saved."""
        for folder in self._opened:
            shutil.rmtree(folder, ignore_errors=True)
        self._opened = []


class Progress:
    """The progress of one training.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path):
        self.path = folder / "state.pt"

    def latest(self) -> dict[str, Any] | None:
        """The state saved last, on the CPU, or none. Reading runs no code."""
        import torch

        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Take the place of the state saved before; a kill leaves one or the other."""
        import torch

        with atomic_path(self.path) as temporary:
            torch.save(dict(state), temporary)


def describe_difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """What differs between two identities, by dotted name, the first three."""
    left, right = flatten(theirs), flatten(ours)
    names = [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
    parts = [f"{name} was {left.get(name)!r}, is {right.get(name)!r}" for name in names[:3]]
    return "; ".join(parts) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """What is in nested dicts and lists, by dotted names; the places of a list are numbers."""
    if not isinstance(value, dict | list):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    flat: dict[str, Any] = {}
    for name, inner in items:
        flat.update(flatten(inner, f"{prefix}.{name}" if prefix else str(name)))
    return flat
