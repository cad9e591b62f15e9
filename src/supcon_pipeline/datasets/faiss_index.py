"""A faiss index in one file."""

from pathlib import Path
from typing import Any

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.datasets.versioned_path import VersionedPathDataset


class FaissIndexDataset(VersionedPathDataset):
    """A faiss index in faiss's own format, which holds only numbers: loading it runs no code."""

    def load(self) -> Any:
        """The index."""
        import faiss

        return faiss.read_index(str(self._get_load_path()))

    def save(self, data: Any) -> None:
        """Write the index."""
        import faiss

        with atomic_path(Path(self._get_save_path())) as temporary:
            faiss.write_index(data, str(temporary))
