"""Images packed in one array, memory-mapped when loaded."""

import mmap
import os
import shutil
from pathlib import Path

import numpy as np
from kedro.io import DatasetError

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.datasets.versioned_path import VersionedPathDataset


class PackedImagesDataset(VersionedPathDataset):
    """Images `[n, height, width, channels]`, uint8, in one `.npy` file.

    Loading maps the file into memory: it costs nothing until pixels are used, and worker processes share it.
    """

    def load(self) -> np.ndarray:
        """The images, mapped read-only."""
        images: np.ndarray = np.load(Path(self._get_load_path()), mmap_mode="r", allow_pickle=False)
        return images

    def save(self, data: np.ndarray) -> None:
        """Write the images, which must be uint8 with four dimensions.

        Images that already are a whole memory-mapped file are linked, not written again.
        """
        if data.dtype != np.uint8 or data.ndim != 4:
            raise DatasetError(
                "packed images must be uint8 [n, height, width, channels], "
                f"got {data.dtype} {list(data.shape)}"
            )
        with atomic_path(Path(self._get_save_path())) as temporary:
            if isinstance(data, np.memmap) and isinstance(data.base, mmap.mmap) and data.filename:
                _link_or_copy(Path(data.filename), temporary)
            else:
                with temporary.open("wb") as file:
                    np.save(file, data, allow_pickle=False)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another disk, or a file system without links.
        shutil.copyfile(source, target)
