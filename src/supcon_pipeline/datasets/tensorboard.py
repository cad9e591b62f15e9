"""TensorBoard logs."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import DatasetError

from supcon_pipeline.datasets.versioned_path import VersionedPathDataset


class TensorBoardDataset(VersionedPathDataset):
    """A folder of TensorBoard events, with a subfolder per version.

    Loading gives a handle that writes to the save version, so that curves can be watched while a node runs.
    """

    def load(self) -> Any:
        """A `TrainingLog` for this run."""
        from supcon_pipeline.core.training.tensorboard import TrainingLog

        version = self.resolve_save_version()
        return TrainingLog(str(Path(self._filepath) / version) if version else str(self._filepath))

    def save(self, data: Any) -> NoReturn:
        """Refused: events are written through the handle."""
        raise DatasetError(
            f"TensorBoardDataset must be written through its handle, got {type(data).__name__}"
        )

    def _exists(self) -> bool:
        return Path(self._filepath).is_dir()
