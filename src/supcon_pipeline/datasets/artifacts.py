"""What all artifacts have in common: what is read is what was written, or else one line says so."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from kedro.io import DatasetError

from supcon_pipeline.core.checksums import is_unchanged
from supcon_pipeline.core.messages import InputError


class ArtifactError(InputError, DatasetError):
    """An artifact that is not what was saved. Kedro adds nothing to it, because it is a `DatasetError`."""


class NamedArguments:
    """Mixin for datasets: their configuration has their arguments by name, as the catalog has them.

    Kedro has those of a class that inherits its `__init__` from another dataset as `args` and `kwargs`.
    """

    _init_args: dict[str, Any]

    def _init_config(self) -> dict[str, Any]:
        given = self._init_args
        if given.keys() == {"args", "kwargs"}:
            # In Kedro's wrappers, the signature is that of the class which has it.
            bound = signature(type(self)).bind(*given["args"], **given["kwargs"])
            self._init_args = dict(bound.arguments)
        config: dict[str, Any] = super()._init_config()  # type: ignore[misc]
        return config


class CheckedFile(NamedArguments):
    """Mixin for Kedro's datasets of one file: what is loaded is what was saved."""

    def load(self) -> Any:
        """What was saved.

        Raises:
            ArtifactError: where the file has changed, or cannot be read.
        """
        if self._protocol != "file":  # type: ignore[attr-defined]
            # An object store has checksums of its own.
            return super().load()  # type: ignore[misc]
        with reading(Path(self._get_load_path())):  # type: ignore[attr-defined]
            return super().load()  # type: ignore[misc]


def is_version(path: Path) -> bool:
    """Whether a path is that of a version, as Kedro forms it: `<name>/<version>/<name>`."""
    return path.parent.parent.name == path.name


@contextmanager
def reading(path: Path, remedy: str = "") -> Iterator[None]:
    """For a block that reads an artifact: make sure first that it has not changed since it was saved.

    Artifacts without a checksum are read all the same: those of earlier releases, and copies.

    Args:
        path: the file.
        remedy: what to do instead of restoring it; by default, to have it made again.

    Raises:
        ArtifactError: where it has changed, or where the block cannot make sense of it.
    """
    if not is_unchanged(path):
        raise _refuse(path, "be as it was saved, got other content", remedy)
    try:
        yield
    except Exception as error:
        # What a dataset of Kedro raises has its reason behind it.
        reason = error.__cause__ or error if isinstance(error, DatasetError) else error
        if not _is_of_content(reason):
            raise
        words = " ".join(str(reason).split())[:200] or type(reason).__name__
        raise _refuse(
            path, f"be a file of its kind, got one that cannot be read ({words})", remedy
        ) from error


def _is_of_content(error: BaseException) -> bool:
    """Whether an error of reading is due to what a file holds."""
    if isinstance(error, OSError):
        # The system gives its errors a number; libraries raise them without.
        return error.errno is None and not isinstance(error, FileNotFoundError)
    return not isinstance(error, InputError | DatasetError | ImportError | MemoryError)


def _refuse(path: Path, refusal: str, remedy: str) -> ArtifactError:
    if not is_version(path):
        return ArtifactError(f"{path} must {refusal}; restore it from a copy")
    remedy = remedy or f"delete it to have it made again: rm -r {shlex.quote(str(path.parent))}"
    return ArtifactError(
        f"{path.name} of run {path.parent.name} must {refusal}; restore {path} from a copy, or {remedy}"
    )
