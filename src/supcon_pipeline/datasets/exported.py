"""Exported models, in files that other programs can read."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import DatasetError

from supcon_pipeline.core.atomic import open_for_torch, write_checksum
from supcon_pipeline.core.checksums import checksum_of
from supcon_pipeline.core.messages import require_extra
from supcon_pipeline.datasets.versioned_path import VersionedFileDataset, VersionedFolderDataset

METADATA = "metadata.json"


class ProgramDataset(VersionedFileDataset):
    """`core.inference.export.ModelProgram` in one `.pt2` file; its metadata is inside, as `metadata.json`."""

    def read(self, path: Path) -> Any:
        """The program, on the CPU; a file from elsewhere may run code of its own."""
        import torch

        from supcon_pipeline.core.inference.export import ModelProgram

        extra = {METADATA: ""}
        with path.open("rb") as file, _without_log("torch.export"):
            program = torch.export.load(file, extra_files=extra)
        return ModelProgram(program, json.loads(extra[METADATA]))

    def write(self, data: Any, path: Path) -> None:
        """Write the program."""
        import torch

        extra = {METADATA: json.dumps(data.metadata)}
        with open_for_torch(path) as file:
            torch.export.save(data.program, file, extra_files=extra)


@contextmanager
def _without_log(name: str) -> Iterator[None]:
    """Of a file that cannot be read, torch logs a traceback beside the error that it raises."""
    logger = logging.getLogger(name)
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


class BackboneDataset(VersionedFolderDataset):
    """A folder as a hub has it: `model.safetensors`, `config.json`, their checksums, and a `README.md`."""

    def write(self, data: Any, folder: Path) -> None:
        """Write a `core.inference.native_weights.NativeWeights`."""
        from safetensors.torch import save_file

        if data.library == "timm":
            from timm.models import save_for_hf

            save_for_hf(
                data.network,
                str(folder),
                {"changes": data.changes},
                safe_serialization=True,
                data_config=data.preparation,
            )
        else:
            (folder / "config.json").write_text(json.dumps(data.config, indent=2))
        # timm leaves out the format, which other libraries ask for.
        save_file(data.network.state_dict(), folder / "model.safetensors", {"format": "pt"})
        (folder / "README.md").write_text(data.card, encoding="utf-8")
        for name in ("model.safetensors", "config.json"):
            # Trainings that start from these weights compare them.
            write_checksum(folder / name, checksum_of(folder / name))

    def load(self) -> NoReturn:
        """Refused: the library of the network reads it."""
        raise DatasetError(
            f"BackboneDataset must be read as its README.md says, got load of {self._filepath}"
        )


class OnnxDataset(VersionedFileDataset):
    """An ONNX `ModelProto` in one `.onnx` file; loading it runs no code."""

    def read(self, path: Path) -> Any:
        """The `ModelProto`."""
        require_extra("onnx", "onnx")
        import onnx

        model = onnx.load(str(path))
        if not model.graph.node:
            # An empty file is an empty model.
            raise ValueError("it has no graph")
        return model

    def write(self, data: Any, path: Path) -> None:
        """Write the model."""
        path.write_bytes(data.SerializeToString())
