"""Embeddings for TensorBoard's projector."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import DatasetError

from supcon_pipeline.datasets.versioned_path import VersionedFolderDataset


class ProjectorDataset(VersionedFolderDataset):
    """A folder that `tensorboard --logdir` shows in its projector: vectors, a table and small pictures."""

    def write(self, data: Any, folder: Path) -> None:
        """Write a `core.figures.projector.ProjectorPoints`."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder)) as log:
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
