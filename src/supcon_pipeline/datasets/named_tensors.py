"""Named tensors in one safetensors file."""

import json
from pathlib import Path
from typing import Any

from supcon_pipeline.datasets.atomic import atomic_path
from supcon_pipeline.datasets.versioned_path import VersionedPathDataset


class NamedTensorsDataset(VersionedPathDataset):
    """`core.tensors.NamedTensors` in one safetensors file: no pickle, so reading runs no code."""

    def load(self) -> Any:
        """The tensors, on the CPU, with their metadata."""
        from safetensors import safe_open

        from supcon_pipeline.core.tensors import NamedTensors

        with safe_open(Path(self._get_load_path()), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return NamedTensors(tensors, json.loads(file.metadata()["metadata"]))

    def save(self, data: Any) -> None:
        """Write the tensors and their metadata."""
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in data.tensors.items()}
        with atomic_path(Path(self._get_save_path())) as temporary:
            save_file(tensors, temporary, {"metadata": json.dumps(data.metadata)})
