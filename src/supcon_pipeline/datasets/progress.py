"""The progress of trainings, from which a killed one resumes."""

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from supcon_pipeline.core.training.progress import ProgressStore
from supcon_pipeline.datasets.local_path import require_local


class ProgressDataset(AbstractDataset[Any, Any]):
    """A folder with the progress of trainings, separate from the artifacts and not versioned.

    Loading gives a handle that reads and writes it while a node runs. It is the same handle every time, so
    that `clear` knows which progress this process has used.

    Args:
        filepath: the folder.
        metadata: for plugins.

    Raises:
        InputError: where the path is no local one.
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None):
        self._filepath, self.metadata = require_local(filepath), metadata
        self._store: ProgressStore | None = None

    def load(self) -> ProgressStore:
        """The store in the folder."""
        if self._store is None:
            self._store = ProgressStore(self._filepath)
        return self._store

    def clear(self) -> None:
        """Remove the progress that was used, once the training has ended and its artifacts are saved."""
        if self._store is not None:
            self._store.clear()

    def save(self, data: Any) -> NoReturn:
        """Refused: progress is written through the handle."""
        raise DatasetError(f"ProgressDataset must be written through its handle, got {type(data).__name__}")

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
