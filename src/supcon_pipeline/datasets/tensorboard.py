"""TensorBoard logs."""

from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from kedro.io import DatasetError

from supcon_pipeline.core.checksums import SUFFIX
from supcon_pipeline.datasets.versioned_path import VersionedPathDataset


class TensorBoardDataset(VersionedPathDataset):
    """A folder of TensorBoard events, with a subfolder per version.

    Loading gives a handle that writes to the save version, so that curves can be watched while a node runs.
    They are written on this machine; an object store gets them when the node has run.
    """

    def load(self) -> Any:
        """A `TrainingLog` for this run."""
        from supcon_pipeline.core.training.tensorboard import TrainingLog

        return TrainingLog(str(self.folder_of(self.resolve_save_version())))

    def folder_of(self, version: str | None) -> Path:
        """Where the events of a run are written, on this machine."""
        return self._store.copy_of(self._place_of(version))

    def publish(self) -> None:
        """Let others have the events of this run.

        Raises:
            ArtifactError: where the object store does not take them.
        """
        place = self._place_of(self.resolve_save_version())
        self._store.publish_folder(place, place / f"events{SUFFIX}")

    def _place_of(self, version: str | None) -> PurePosixPath:
        return self._filepath / version if version else self._filepath

    def save(self, data: Any) -> NoReturn:
        """Refused: events are written through the handle."""
        raise DatasetError(
            f"TensorBoardDataset must be written through its handle, got {type(data).__name__}"
        )

    def _exists(self) -> bool:
        return self._store.is_folder(self._filepath)
