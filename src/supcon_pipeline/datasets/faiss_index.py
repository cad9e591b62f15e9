"""A faiss index in one file."""

from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, Version

from supcon_pipeline.datasets.atomic import atomic_path


class FaissIndexDataset(AbstractVersionedDataset[Any, Any]):
    """A faiss index in faiss's own format, which holds numbers alone: reading runs no code.

    Args:
        filepath: of the `.faiss` file.
        version: as the catalog gives it.
        metadata: for plugins.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def load(self) -> Any:
        """The index."""
        import faiss

        return faiss.read_index(str(self._get_load_path()))

    def save(self, data: Any) -> None:
        """Write the index."""
        import faiss

        with atomic_path(Path(self._get_save_path())) as temporary:
            faiss.write_index(data, str(temporary))

    def _exists(self) -> bool:
        return Path(self._get_load_path()).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
