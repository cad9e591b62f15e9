"""The progress of a training on disk, from which a killed one resumes."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supcon_pipeline.core.atomic import atomic_path, open_for_torch, set_aside
from supcon_pipeline.core.checksums import checksum_of, is_proven
from supcon_pipeline.core.claims import Claim

logger = logging.getLogger(__name__)


class ProgressStore:
    """A folder with the progress of trainings, each found by its identity.

    The progress of another training is neither used nor removed.

    Args:
        folder: one subfolder per training.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._opened: dict[Path, Claim] = {}

    def open(self, identity: Mapping[str, Any]) -> "Progress":
        """The progress of the training with this identity.

        If it has none but other trainings do, a warning says in what each differs.

        Args:
            identity: parameters, data and code of the training, in plain JSON values.

        Raises:
            InputError: where another process is at the same training.
        """
        text = json.dumps(identity, sort_keys=True, indent=2)
        folder = self.folder / _name_of(text.encode())
        claim = self._opened.get(folder) or Claim(self.folder, [folder.name], f"training {self.folder.name}")
        if not (folder / "state.pt").exists():
            self._warn_of_others(identity, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "identity.json") as temporary:
            temporary.write_text(text)
        self._opened[folder] = claim
        return Progress(folder)

    def _warn_of_others(self, identity: Mapping[str, Any], folder: Path) -> None:
        for path in sorted(self.folder.glob("*/identity.json")):
            if path.parent == folder or not (path.parent / "state.pt").exists():
                continue
            text = path.read_bytes()
            if _name_of(text) != path.parent.name:
                logger.warning("%s is not as it was written; it is now %s", path, set_aside(path).name)
                continue
            logger.warning(
                "Not resuming from %s, which is of another training (%s); delete it if it is not needed",
                path.parent,
                describe_difference(json.loads(text), identity),
            )

    def clear(self) -> None:
        """Remove the progress that this store has opened, once the training has ended and been saved."""
        for folder, claim in self._opened.items():
            shutil.rmtree(folder, ignore_errors=True)
            claim.release()
        self._opened = {}


class Progress:
    """The progress of one training.

    Args:
        folder: the folder of this training.
    """

    def __init__(self, folder: Path):
        self.path = folder / "state.pt"

    def latest(self) -> dict[str, Any] | None:
        """The last saved state, on the CPU, or none. Loading it runs no code.

        A file that is not what was saved is set aside, and a warning says so.
        """
        import torch

        if not self.path.exists():
            return None
        if not is_proven(self.path):
            logger.warning(
                "%s is not as it was saved, so this training starts anew; the file is now %s",
                self.path,
                set_aside(self.path).name,
            )
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; a process killed meanwhile leaves the old or the new one."""
        import torch

        with atomic_path(self.path, checksum_of) as temporary, open_for_torch(temporary) as file:
            torch.save(dict(state), file)


def _name_of(identity: bytes) -> str:
    """The name of the folder of a training: a hash of its identity."""
    return hashlib.sha256(identity).hexdigest()[:16]


def describe_difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The first three differences between two identities, by dotted name."""
    left, right = flatten(theirs), flatten(ours)
    names = [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
    parts = [f"{name} was {left.get(name)!r}, is {right.get(name)!r}" for name in names[:3]]
    return "; ".join(parts) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """The values in nested dicts and lists by dotted name; positions in a list are numbers."""
    if not isinstance(value, dict | list):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    flat: dict[str, Any] = {}
    for name, inner in items:
        flat.update(flatten(inner, f"{prefix}.{name}" if prefix else str(name)))
    return flat
