"""The base of datasets with one file or folder per version."""

from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, Version


class VersionedPathDataset(AbstractVersionedDataset[Any, Any]):
    """Base of datasets that keep one file or folder per version on the local disk.

    Args:
        filepath: the file or folder.
        version: load and save version, set by the catalog.
        metadata: for plugins.
    """

    def __init__(self, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def _exists(self) -> bool:
        return Path(self._get_load_path()).exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
