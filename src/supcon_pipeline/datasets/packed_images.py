"""Images packed in one file, memory-mapped when loaded."""

import os
import shutil
from pathlib import Path

import numpy as np

from supcon_pipeline.core.checksums import read_checksums
from supcon_pipeline.core.data.encoded_images import EncodedImages, StoredImages, open_images
from supcon_pipeline.core.data.mapping import MappedFile, file_of
from supcon_pipeline.datasets.versioned_path import VersionedFileDataset


class PackedImagesDataset(VersionedFileDataset):
    """Images `[n, height, width, channels]`, uint8, in one `.npy` file, or encoded ones as its bytes.

    Loading maps the file into memory: it costs nothing until pixels are used, and worker processes share it.
    """

    def read(self, path: Path) -> StoredImages:
        """The images, mapped read-only."""
        images = open_images(path)
        _require_images(images)
        return images

    def write(self, data: StoredImages, path: Path) -> None:
        """Write the images, which must be uint8 with four dimensions.

        Images that already are a whole memory-mapped file are linked, not written again.
        """
        _require_images(data)
        source = _file_of(data)
        if source:
            _link_or_copy(source, path)
        else:
            with path.open("wb") as file:
                np.save(file, _stored(data), allow_pickle=False)

    def checksum(self, data: StoredImages, path: Path) -> str:
        """That of the file that was linked: if it has changed since it was packed, that is to be noticed."""
        source = _file_of(data)
        known = read_checksums(source) if source else []
        return known[0] if known else super().checksum(data, path)

    def num_bytes(self, data: StoredImages) -> int:
        """The size of the images."""
        return data.nbytes


def _require_images(data: StoredImages) -> None:
    if data.dtype != np.uint8 or data.ndim != 4:
        raise ValueError(
            f"packed images must be uint8 [n, height, width, channels], got {data.dtype} {list(data.shape)}"
        )


def _stored(data: StoredImages) -> np.ndarray:
    """The array that is in the file."""
    return data.stored if isinstance(data, EncodedImages) else data


def _file_of(data: StoredImages) -> Path | None:
    """The file that images are the whole of, memory-mapped; none for any others."""
    mapped = file_of(_stored(data))
    return Path(mapped.filename) if isinstance(mapped, MappedFile) else None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another disk, or a file system without links.
        shutil.copyfile(source, target)
