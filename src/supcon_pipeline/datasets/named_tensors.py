"""Named tensors in one safetensors file."""

import json
from pathlib import Path

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.datasets.versioned_path import VersionedPathDataset

# Of the tensor that holds the metadata as JSON.
METADATA = "__json__"


class NamedTensorsDataset(VersionedPathDataset):
    """`core.named_tensors.NamedTensors` in one safetensors file: no pickle, so reading runs no code.

    The metadata is a tensor of bytes: the header of such a file must be below 100 MB, and the ids of a
    million samples are more.
    """

    def load(self) -> NamedTensors:
        """The tensors, on the CPU, with their metadata."""
        from safetensors import safe_open

        with safe_open(Path(self._get_load_path()), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # Files of before have it in the header.
            header = file.metadata() or {}
        words = tensors.pop(METADATA).numpy().tobytes() if METADATA in tensors else header["metadata"]
        return NamedTensors(tensors, json.loads(words))

    def save(self, data: NamedTensors) -> None:
        """Write the tensors and their metadata."""
        import torch
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in data.tensors.items()}
        words = bytearray(json.dumps(data.metadata), "utf-8")
        with atomic_path(Path(self._get_save_path())) as temporary:
            save_file({**tensors, METADATA: torch.frombuffer(words, dtype=torch.uint8)}, temporary)
