"""A faiss index in one file."""

from pathlib import Path
from typing import Any

from supcon_pipeline.datasets.versioned_path import VersionedFileDataset


class FaissIndexDataset(VersionedFileDataset):
    """A faiss index in faiss's own format, which holds only numbers: loading it runs no code."""

    def read(self, path: Path) -> Any:
        """The index."""
        import faiss

        return faiss.read_index(str(path))

    def write(self, data: Any, path: Path) -> None:
        """Write the index."""
        import faiss

        # Into a file of its own faiss writes without noticing that the end of it was refused.
        with path.open("wb") as file:
            faiss.write_index(data, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
