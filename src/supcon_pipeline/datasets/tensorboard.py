"""TensorBoard logs."""

from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from kedro.io import AbstractVersionedDataset, DatasetError, Version


class TensorBoardDataset(AbstractVersionedDataset[Any, Any]):
    """A folder of TensorBoard events, one run below it per version.

    Loading gives a handle to write to, so that the numbers can be watched while a node runs.

    Args:
        filepath: the folder.
        version: as the catalog gives it; the save version is written to.
        metadata: for plugins.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def load(self) -> Any:
        """A `SummaryWriter` for this run."""
        from torch.utils.tensorboard import SummaryWriter

        version = self.resolve_save_version()
        return SummaryWriter(str(Path(self._filepath) / version) if version else str(self._filepath))

    def save(self, data: Any) -> NoReturn:
        """Refused: events are written through the handle."""
        raise DatasetError(
            f"TensorBoardDataset must be written through its handle, got {type(data).__name__}"
        )

    def _exists(self) -> bool:
        return Path(self._filepath).is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
