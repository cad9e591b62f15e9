"""Where the artifacts of a dataset lie: on the disk of this machine, or in an object store."""

from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import fsspec
from kedro.io.core import get_protocol_and_path

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.disk import Disk
from supcon_pipeline.datasets.object_store import ObjectStore

# Where a file appears whole, and Kedro reads the address as fsspec does; each with what to install for it.
_PROTOCOLS = {
    "abfs": "adlfs",
    "abfss": "adlfs",
    "gcs": "gcsfs",
    "gs": "gcsfs",
    "memory": "fsspec",
    "oci": "ocifs",
    "oss": "ossfs",
    "s3": "'supcon_pipeline[s3]'",
    "s3a": "'supcon_pipeline[s3]'",
}

Store = Disk | ObjectStore


def require_path(filepath: Any) -> None:
    """Refuse what a catalog may hold in place of a path; of a list, a path would be made.

    Raises:
        InputError: with what it is.
    """
    if not isinstance(filepath, str | PurePath) or not str(filepath) or "\0" in str(filepath):
        raise InputError(
            f"filepath must be a path or an address in quotes, got {filepath!r}; "
            "mend the entry in the catalog"
        )


def open_store(filepath: str) -> tuple[Store, PurePosixPath]:
    """Where an artifact lies, and its path there.

    Args:
        filepath: a path, or an address such as `s3://bucket/path`.

    Raises:
        InputError: where it is no path or another address, or the library for it is not installed.
    """
    require_path(filepath)
    protocol, path = get_protocol_and_path(filepath)
    if protocol == "file":
        return Disk(), PurePosixPath(path)
    if protocol not in _PROTOCOLS:
        # Kedro would leave out the host, or a file appear before it is whole.
        raise InputError(
            f"filepath must be a path or the address of an object store ({', '.join(_PROTOCOLS)}), "
            f"got {filepath}; change root in globals.yml, or the entry in the catalog"
        )
    try:
        # The first use of a protocol loads its library.
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise InputError(
            f"the library for {protocol}:// must be installed, got none for {filepath}; "
            f"type pip install {_PROTOCOLS[protocol]}"
        ) from error
    return ObjectStore(protocol), PurePosixPath(path)


def store_of(dataset: Any) -> Store:
    """Where the artifacts of a dataset lie, be it of this project or of another."""
    own: Store | None = getattr(dataset, "_store", None)
    if own is not None:
        return own
    protocol = getattr(dataset, "_protocol", "file")
    return Disk() if protocol == "file" else ObjectStore(protocol, dataset._fs.storage_options)


def place_of(dataset: Any, folder: Path) -> str:
    """Where the version of an artifact is that a dataset loads, as a person finds it.

    Args:
        dataset: with versions.
        folder: to which the path is relative where it is inside.
    """
    address = store_of(dataset).address(dataset._get_load_path())
    path = Path(address)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else address
