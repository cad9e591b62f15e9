"""The bases of datasets with one file or folder per version."""

from abc import abstractmethod
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, Version

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.checksums import checksum_of
from supcon_pipeline.datasets.artifacts import NamedArguments, is_version, reading
from supcon_pipeline.datasets.local_path import require_local


class VersionedPathDataset(NamedArguments, AbstractVersionedDataset[Any, Any]):
    """Base of datasets that keep one file or folder per version on the local disk.

    Args:
        filepath: the file or folder.
        version: load and save version, set by the catalog.
        metadata: for plugins.

    Raises:
        InputError: where the path is no local one.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(require_local(filepath)), version)
        self.metadata = metadata

    def _exists(self) -> bool:
        return Path(self._get_load_path()).exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


class VersionedFileDataset(VersionedPathDataset):
    """Base of datasets that keep one file per version: complete or absent, and read as it was written."""

    def load(self) -> Any:
        """What `read` makes of the file.

        Raises:
            ArtifactError: where the file has changed, or cannot be read.
        """
        path = Path(self._get_load_path())
        with reading(path):
            return self.read(path)

    def save(self, data: Any) -> None:
        """Let `write` write the file, which appears when it is complete."""
        path = Path(self._get_save_path())
        checksum = partial(self.checksum, data) if is_version(path) else None
        with atomic_path(path, checksum, self.num_bytes(data)) as temporary:
            self.write(data, temporary)

    @abstractmethod
    def read(self, path: Path) -> Any:
        """What the file holds."""

    @abstractmethod
    def write(self, data: Any, path: Path) -> None:
        """Write a new file."""

    def checksum(self, data: Any, path: Path) -> str:  # noqa: ARG002
        """The checksum of a file that was just written."""
        return checksum_of(path)

    def num_bytes(self, data: Any) -> int | None:  # noqa: ARG002
        """About how large the file will be; none where that is not known before."""
        return None
