"""The bases of datasets of which Kedro has most: their configuration, and files that are read as written."""

from inspect import signature
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from supcon_pipeline.datasets.disk import Disk
from supcon_pipeline.datasets.object_store import ObjectStore
from supcon_pipeline.datasets.stores import Store, open_store, store_of


class NamedArguments:
    """Mixin for datasets: their configuration has their arguments by name, as the catalog has them.

    Kedro has those of a class that inherits its `__init__` from another dataset as `args` and `kwargs`.
    """

    _init_args: dict[str, Any]

    def _init_config(self) -> dict[str, Any]:
        given = dict(self._init_args)
        if given.keys() == {"args", "kwargs"}:
            # In Kedro's wrappers, the signature is that of the class which has it.
            given = dict(signature(type(self)).bind(*given["args"], **given["kwargs"]).arguments)
        named = given.pop("named", {})
        self._init_args = {**given, **named}
        config: dict[str, Any] = super()._init_config()  # type: ignore[misc]
        return config


class CheckedFile(NamedArguments):
    """Mixin for Kedro's datasets of one file: what is loaded is what was saved, wherever it lies.

    In an object store, the dataset of Kedro reads and writes the copy of this machine, as if it were local.
    """

    _store: Store

    def __init__(self, **named: Any):
        # Before a library that is absent is loaded.
        open_store(named.get("filepath", ""))
        super().__init__(**named)
        self._store = store_of(self)
        if isinstance(self._store, ObjectStore):
            self._fs = self._store.fs
            self._exists_function, self._glob_function = self._store.exists, self._store.glob

    def load(self) -> Any:
        """What was saved.

        Raises:
            ArtifactError: where the file has changed, or cannot be read or fetched.
        """
        with self._store.reading(self._get_load_path()) as file:  # type: ignore[attr-defined]
            return super(CheckedFile, self._at(file)).load()  # type: ignore[misc]

    def save(self, data: Any) -> None:
        """Write the file.

        Raises:
            ArtifactError: where the object store does not take it.
        """
        path = self._get_save_path()  # type: ignore[attr-defined]
        super(CheckedFile, self._at(self._store.copy_of(path))).save(data)  # type: ignore[misc]
        self._store.publish(path)

    def _at(self, file: Path) -> Any:
        """This dataset for a file of this machine: as it is, or as it would be for a copy."""
        if not isinstance(self._store, ObjectStore):
            return self
        on_disk = {"_protocol": "file", "_fs": fsspec.filesystem("file", auto_mkdir=True), "_store": Disk()}
        return self._copy(_filepath=PurePosixPath(file), _version=None, _storage_options={}, **on_disk)  # type: ignore[attr-defined]

    def _exists(self) -> bool:
        if not isinstance(self._store, ObjectStore):
            return bool(super()._exists())  # type: ignore[misc]
        return self._store.exists(str(self._get_load_path()))  # type: ignore[attr-defined]
