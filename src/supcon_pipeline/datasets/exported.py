"""Exported models, in files that other programs can read."""

import json
from pathlib import Path
from typing import Any

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.messages import require_extra
from supcon_pipeline.datasets.versioned_path import VersionedPathDataset

METADATA = "metadata.json"


class ProgramDataset(VersionedPathDataset):
    """`core.inference.export.ModelProgram` in one `.pt2` file; its metadata is inside, as `metadata.json`."""

    def load(self) -> Any:
        """The program, on the CPU."""
        import torch

        from supcon_pipeline.core.inference.export import ModelProgram

        extra = {METADATA: ""}
        with Path(self._get_load_path()).open("rb") as file:
            program = torch.export.load(file, extra_files=extra)
        return ModelProgram(program, json.loads(extra[METADATA]))

    def save(self, data: Any) -> None:
        """Write the program."""
        import torch

        extra = {METADATA: json.dumps(data.metadata)}
        with atomic_path(Path(self._get_save_path())) as temporary, temporary.open("wb") as file:
            torch.export.save(data.program, file, extra_files=extra)


class OnnxDataset(VersionedPathDataset):
    """An ONNX `ModelProto` in one `.onnx` file; loading it runs no code."""

    def load(self) -> Any:
        """The `ModelProto`."""
        require_extra("onnx", "onnx")
        import onnx

        return onnx.load(str(self._get_load_path()))

    def save(self, data: Any) -> None:
        """Write the model."""
        with atomic_path(Path(self._get_save_path())) as temporary:
            temporary.write_bytes(data.SerializeToString())
