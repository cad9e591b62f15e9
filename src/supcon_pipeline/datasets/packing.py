"""The last packings of images."""

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from supcon_pipeline.core.data.packing_store import PackingStore
from supcon_pipeline.datasets.local_path import require_local


class PackingDataset(AbstractDataset[Any, Any]):
    """A folder in which images are packed as a stream; not versioned.

    Loading gives a handle that packs: the packed images are on disk when a node has them, and its memory
    does not grow with their number.

    Args:
        filepath: the folder.
        metadata: for plugins.

    Raises:
        InputError: where the path is no local one.
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None):
        self._filepath, self.metadata = require_local(filepath), metadata

    def load(self) -> PackingStore:
        """The store in the folder."""
        return PackingStore(self._filepath)

    def save(self, data: Any) -> NoReturn:
        """Refused: images are packed through the handle."""
        raise DatasetError(f"PackingDataset must be written through its handle, got {type(data).__name__}")

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
