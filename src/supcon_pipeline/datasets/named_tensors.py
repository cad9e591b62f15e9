"""Named tensors in one safetensors file."""

import json
from pathlib import Path

from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.datasets.versioned_path import VersionedFileDataset

# Of the tensor that holds the metadata as JSON.
METADATA = "__json__"


class NamedTensorsDataset(VersionedFileDataset):
    """`core.named_tensors.NamedTensors` in one safetensors file: no pickle, so reading runs no code.

    The metadata is a tensor of bytes: the header of such a file must be below 100 MB, and the ids of a
    million samples are more.
    """

    def read(self, path: Path) -> NamedTensors:
        """The tensors, on the CPU, with their metadata."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # Files of before have it in the header.
            header = file.metadata() or {}
        words = tensors.pop(METADATA).numpy().tobytes() if METADATA in tensors else header["metadata"]
        return NamedTensors(tensors, json.loads(words))

    def write(self, data: NamedTensors, path: Path) -> None:
        """Write the tensors and their metadata."""
        import torch
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in data.tensors.items()}
        words = bytearray(json.dumps(data.metadata), "utf-8")
        save_file({**tensors, METADATA: torch.frombuffer(words, dtype=torch.uint8)}, path)

    def num_bytes(self, data: NamedTensors) -> int:
        """The size of the tensors."""
        return sum(tensor.nbytes for tensor in data.tensors.values())
