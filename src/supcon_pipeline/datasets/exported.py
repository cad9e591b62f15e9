"""Exported models in files that other programs read."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, Version

from supcon_pipeline.datasets.atomic import atomic_path

METADATA = "metadata.json"


class _ModelFileDataset(AbstractVersionedDataset[Any, Any]):
    """One file with a model.

    Args:
        filepath: of the file.
        version: as the catalog gives it.
        metadata: for plugins.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def _exists(self) -> bool:
        return Path(self._get_load_path()).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


class ProgramDataset(_ModelFileDataset):
    """`core.export.ModelProgram` in one `.pt2` file, its metadata beside the program as `metadata.json`."""

    def load(self) -> Any:
        """The program, on the CPU."""
        import torch

        from supcon_pipeline.core.export import ModelProgram

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


class OnnxDataset(_ModelFileDataset):
    """An ONNX `ModelProto` in one `.onnx` file; reading runs no code."""

    def load(self) -> Any:
        """The model, as `onnx` holds it."""
        import onnx

        return onnx.load(str(self._get_load_path()))

    def save(self, data: Any) -> None:
        """Write the model."""
        with atomic_path(Path(self._get_save_path())) as temporary:
            temporary.write_bytes(data.SerializeToString())
