"""What all artifacts have in common: what is read is what was written, or else one line says so."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from kedro.io import DatasetError

from supcon_pipeline.core.checksums import is_unchanged
from supcon_pipeline.core.messages import InputError


class ArtifactError(InputError, DatasetError):
    """An artifact that is not what was saved. Kedro adds nothing to it, because it is a `DatasetError`."""


def is_version(path: PurePath) -> bool:
    """Whether a path is that of a version, as Kedro forms it: `<name>/<version>/<name>`."""
    return path.parent.parent.name == path.name


@contextmanager
def reading(path: Path, remedy: str = "", address: str = "") -> Iterator[None]:
    """For a block that reads an artifact: make sure first that it has not changed since it was saved.

    Artifacts without a checksum are read all the same: those of earlier releases, and copies.

    Args:
        path: the file.
        remedy: what to do instead of restoring it; by default, to have it made again.
        address: of the artifact in an object store, of which the file is a copy.

    Raises:
        ArtifactError: where it has changed, or where the block cannot make sense of it.
    """
    if not is_unchanged(path):
        raise refuse(path, "be as it was saved, got other content", remedy, address)
    try:
        yield
    except Exception as error:
        # What a dataset of Kedro raises has its reason behind it.
        reason = error.__cause__ or error if isinstance(error, DatasetError) else error
        if not _is_of_content(reason):
            raise
        words = " ".join(str(reason).split())[:200] or type(reason).__name__
        raise refuse(
            path, f"be a file of its kind, got one that cannot be read ({words})", remedy, address
        ) from error


def _is_of_content(error: BaseException) -> bool:
    """Whether an error of reading is due to what a file holds."""
    if isinstance(error, OSError):
        # The system gives its errors a number; libraries raise them without.
        return error.errno is None and not isinstance(error, FileNotFoundError)
    return not isinstance(error, InputError | DatasetError | ImportError | MemoryError)


def refuse(path: PurePath, refusal: str, remedy: str = "", address: str = "") -> ArtifactError:
    """The error for an artifact that is not what was saved.

    Args:
        path: its file.
        refusal: what it must be, and what it is.
        remedy: what to do instead of restoring it; by default, to have it made again.
        address: of the artifact in an object store; none for one on this disk.
    """
    place = address or str(path)
    if not is_version(path):
        return ArtifactError(f"{place} must {refusal}; restore it from a copy")
    remedy = remedy or f"delete it to have it made again: {_command_to_delete(path, address)}"
    return ArtifactError(
        f"{path.name} of run {path.parent.name} must {refusal}; restore {place} from a copy, or {remedy}"
    )


def _command_to_delete(path: PurePath, address: str) -> str:
    if not address:
        return f"rm -r {shlex.quote(str(path.parent))}"
    # Where the artifact is read, there are Python and fsspec; the tools of the store may be absent.
    folder = address.rpartition("/")[0]
    code = f"from fsspec.core import url_to_fs as f; s, p = f({folder!r}); s.rm(p, recursive=True)"
    return f"python -c {shlex.quote(code)}"
