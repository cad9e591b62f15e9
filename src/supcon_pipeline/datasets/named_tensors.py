"""Named tensors in one safetensors file."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, Version

from supcon_pipeline.datasets.atomic import atomic_path


class NamedTensorsDataset(AbstractVersionedDataset[Any, Any]):
    """`core.tensors.NamedTensors` in one safetensors file: no pickle, so reading runs no code.

    Args:
        filepath: of the `.safetensors` file.
        version: as the catalog gives it.
        metadata: for plugins.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

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

    def _exists(self) -> bool:
        return Path(self._get_load_path()).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
