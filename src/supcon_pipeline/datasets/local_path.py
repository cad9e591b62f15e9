"""What only a disk of this machine can hold: progress, packings and downloads."""

from pathlib import Path

from kedro.io.core import get_protocol_and_path

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.stores import require_path


def require_local(filepath: str) -> Path:
    """The path of what is written in many steps, or read by another library.

    Args:
        filepath: of the catalog, a path or a `file://` address.

    Raises:
        InputError: where it is no path, or an address in an object store, which would become a folder `s3:`.
    """
    require_path(filepath)
    protocol, path = get_protocol_and_path(filepath)
    if protocol != "file":
        raise InputError(
            f"filepath must be on this machine for data of this kind, got {filepath}; "
            "set a local path for it in the catalog"
        )
    return Path(path)
