"""Embeddings for TensorBoard's projector."""

from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from kedro.io import AbstractVersionedDataset, DatasetError, Version

from supcon_pipeline.datasets.atomic import atomic_folder


class ProjectorDataset(AbstractVersionedDataset[Any, Any]):
    """A folder that `tensorboard --logdir` shows in its projector: vectors, a table and small pictures.

    Args:
        filepath: the folder.
        version: as the catalog gives it.
        metadata: for plugins.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def save(self, data: Any) -> None:
        """Write a `core.projector.Projection`."""
        from torch.utils.tensorboard import SummaryWriter

        with atomic_folder(Path(self._get_save_path())) as folder, SummaryWriter(str(folder)) as log:
            log.add_embedding(
                data.vectors,
                metadata=data.table.astype(str).to_numpy().tolist(),
                metadata_header=list(data.table),
                label_img=data.sprites,
                tag="embedding",
            )

    def load(self) -> NoReturn:
        """Refused: TensorBoard reads it."""
        raise DatasetError(f"ProjectorDataset must be read by TensorBoard, got load of {self._filepath}")

    def _exists(self) -> bool:
        return Path(self._get_load_path()).is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
