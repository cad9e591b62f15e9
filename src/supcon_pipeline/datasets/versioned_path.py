"""The bases of datasets with one file or folder per version."""

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

from kedro.io import AbstractVersionedDataset, Version

from supcon_pipeline.core.atomic import atomic_folder, atomic_path
from supcon_pipeline.core.checksums import checksum_of
from supcon_pipeline.datasets.artifacts import is_version
from supcon_pipeline.datasets.checked_file import NamedArguments
from supcon_pipeline.datasets.object_store import ObjectStore
from supcon_pipeline.datasets.stores import open_store


class VersionedPathDataset(NamedArguments, AbstractVersionedDataset[Any, Any]):
    """Base of datasets that keep one file or folder per version, on the local disk or in an object store.

    Args:
        filepath: the file or folder, or its address.
        version: load and save version, set by the catalog.
        metadata: for plugins.

    Raises:
        InputError: where the library for the address is not installed.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        self._store, path = open_store(filepath)
        ask = (self._is_in_store, self._store.glob) if isinstance(self._store, ObjectStore) else ()
        super().__init__(path, version, *ask)
        self.metadata = metadata

    def _is_in_store(self, path: str) -> bool:
        """Whether a version is there as a whole."""
        return self._store.exists(path)

    def _exists(self) -> bool:
        return self._is_in_store(str(self._get_load_path()))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._store.address(self._filepath), "version": self._version}


class VersionedFileDataset(VersionedPathDataset):
    """Base of datasets that keep one file per version: complete or absent, and read as it was written."""

    def load(self) -> Any:
        """What `read` makes of the file.

        Raises:
            ArtifactError: where the file has changed, or cannot be read or fetched.
        """
        with self._store.reading(self._get_load_path()) as path:
            return self.read(path)

    def save(self, data: Any) -> None:
        """Let `write` write the file, which appears when it is complete.

        Raises:
            ArtifactError: where the object store does not take it.
        """
        place = self._get_save_path()
        checksum = partial(self.checksum, data) if is_version(place) else None
        with atomic_path(self._store.copy_of(place), checksum, self.num_bytes(data)) as temporary:
            self.write(data, temporary)
        self._store.publish(place)

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


class VersionedFolderDataset(VersionedPathDataset):
    """Base of datasets that keep one folder per version: complete or absent."""

    def save(self, data: Any) -> None:
        """Let `write` write the folder, which appears when it is complete.

        Raises:
            ArtifactError: where the object store does not take it.
        """
        place = self._get_save_path()
        self._store.drop_copy(place)
        with atomic_folder(self._store.copy_of(place)) as folder:
            self.write(data, folder)
        self._store.publish_folder(place)

    @abstractmethod
    def write(self, data: Any, folder: Path) -> None:
        """Write into a new folder."""

    def _is_in_store(self, path: str) -> bool:
        return self._store.has_folder(path)
