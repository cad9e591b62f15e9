"""Artifacts that only a disk of this machine can hold."""

from pathlib import Path

from kedro.io.core import get_protocol_and_path

from supcon_pipeline.core.messages import InputError


def require_local(filepath: str) -> Path:
    """The path of an artifact that is memory-mapped, renamed into place or read by another library.

    Args:
        filepath: of the catalog, a path or a `file://` address.

    Raises:
        InputError: where it is an address in an object store, which would become a local folder `s3:`.
    """
    protocol, path = get_protocol_and_path(filepath)
    if protocol != "file":
        raise InputError(
            f"filepath must be on this machine for artifacts of this kind, got {filepath}; set a local path "
            f"in the catalog, and copy the artifacts of a finished run to {protocol}://"
        )
    return Path(path)
