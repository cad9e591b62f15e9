"""Accidents of the machine, such as a full disk or too little memory, told in one line."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node
from pydantic import ValidationError

from supcon_pipeline.commands import CommandError, find_refusal, leaves, replaced
from supcon_pipeline.config_faults import explain_entry
from supcon_pipeline.core.messages import InputError, format_bytes
from supcon_pipeline.validation import parameter_models

# What the system refuses, as `<contract>; <remedy>`. Errors that are not here are faults of the program.
_REFUSALS = {
    errno.EACCES: "be open to this user; give it access, or choose another path",
    errno.EPERM: "be open to this user; give it access, or choose another path",
    errno.EROFS: "be on a disk that can be written; start from a copy of the project on another disk",
    errno.ENAMETOOLONG: "have a path that the disk takes; shorten its name or those of its folders",
    errno.ENOENT: "exist until the run has ended; bring it back and start the command again",
    errno.ENOTDIR: "be below folders only; move away the file that has the name of a folder",
    errno.EISDIR: "be a file; move away the folder that has its name",
    errno.ELOOP: "not be a link to itself; remove the link",
    errno.EFBIG: "be within the limit on file sizes; type ulimit -f unlimited, or use another disk",
    errno.EIO: "be on a disk that works; check the disk and its cable or network",
    errno.ENXIO: "be on a disk that works; check the disk and its cable or network",
    errno.ENODEV: "be on a disk that works; check the disk and its cable or network",
    errno.ESTALE: "be on a disk that is there; mount it again and start the command again",
    errno.EHOSTDOWN: "be on a disk that is there; mount it again and start the command again",
    errno.ENOTCONN: "be on a disk that is there; mount it again and start the command again",
    errno.ETIMEDOUT: "be on a disk that answers; check the network and start the command again",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
# How libraries that are written in other languages word an error of the system.
_ERRNO_IN_WORDS = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)|\berrno[ =:]+(\d+)")
_PATH_IN_WORDS = re.compile(r"\bfilepath=(?:\w+\()?'?(?P<path>/[^,')]+)")
_LACK_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|unable to allocate"
    r"|failed to allocate|bad_alloc|insufficient memory|alloc_failed|unable to mmap"
    r"|can't start new thread|resource temporarily unavailable",
    re.IGNORECASE,
)
_LOST_WORKER = re.compile(r"DataLoader (worker \(pid|timed out)|workers? is no longer possible|shared memory")
# Python looks for one that it can write to, and finds none where all are on a full disk or read-only.
_NO_TEMPORARY_FOLDER = re.compile(r"No usable temporary directory found in \[(?P<places>.*)\]")
_SIZES = ("micro_batch_size", "batch_size", "validation_batch_size", "num_workers")


class AccidentHooks:
    """Tell an accident of a node or a dataset in one line, however the run was started."""

    @hook_impl(trylast=True)
    def on_node_error(self, error: Exception, node: Node, catalog: DataCatalog) -> None:
        """Tell an accident with the parameters that the node can do with less of.

        Raises:
            CommandError: with the line, where the error is an accident.
        """
        line = explain_accident(error, node.name, smaller_values(node, catalog))
        if line is not None:
            raise CommandError(line) from error

    @hook_impl(trylast=True)
    def on_pipeline_error(self, error: Exception) -> None:
        """Tell what a node has refused, or an accident while something was loaded or saved.

        Raises:
            CommandError: with the line, where the error is one of these.
        """
        raise_in_one_line(error)


def raise_in_one_line(error: BaseException) -> None:
    """Raise refused input, accidents and faults of the catalog as one line; leave those of the program.

    Raises:
        CommandError: with the line.
    """
    refusal = find_refusal(error)
    if isinstance(refusal, CommandError):
        return
    known = explain_accident(error) or explain_entry(error)
    line = known if refusal is None else _own_words(refusal)
    if line is not None:
        raise CommandError(line) from error


def explain_accident(
    error: BaseException, place: str = "the run", smaller: Mapping[str, int] | None = None
) -> str | None:
    """An accident as `<name> must <contract>, got <value>; <remedy>`; none for a fault of the program.

    Args:
        error: an error, perhaps raised from the accident.
        place: what lacked memory.
        smaller: values that need less memory, by dotted name of the parameter.
    """
    chain, smaller = list(_causes(error)), smaller or {}
    if any(isinstance(cause, BrokenProcessPool) for cause in chain):
        return _explain_lost_worker("one was killed", smaller)
    for cause in chain:
        words, number = str(cause), _errno_of(cause)
        if isinstance(cause, InputError):
            return None
        if isinstance(cause, RuntimeError) and _LOST_WORKER.search(words):
            return _explain_lost_worker(words, smaller)
        if isinstance(cause, MemoryError) or number == errno.ENOMEM or _LACK_OF_MEMORY.search(words):
            got = _first_sentence(cause)
            return f"memory must be enough for {place}, got too little: {got}; {_remedy_of(smaller)}"
        if found := _NO_TEMPORARY_FOLDER.search(words):
            contract = "must have room and be open to this user"
            remedy = "make room, or set TMPDIR to a folder on another disk"
            return f"a folder for temporary files {contract}, got none of {found['places']}; {remedy}"
        if number in _TOO_MANY_FILES:
            return f"open files must be within the limit, got {os.strerror(number)}; type ulimit -n 65536"
        if number in _FULL:
            return _explain_full_disk(_path_of(chain), cause)
        if number in _REFUSALS and (path := _path_of(chain)):
            contract, _, remedy = _REFUSALS[number].partition("; ")
            return f"{path} must {contract}, got: {os.strerror(number)}; {remedy}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _errno_of(error: BaseException) -> int | None:
    """The number that the system gave; a worker process and other languages give it in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _ERRNO_IN_WORDS.search(str(error))
    return int(next(filter(None, found.groups()))) if found else None


def _path_of(chain: list[BaseException]) -> str:
    """The path that an accident was about; empty where no error of the chain has it."""
    names = [error.filename for error in chain if isinstance(error, OSError) and error.filename]
    found = [match["path"] for error in chain if (match := _PATH_IN_WORDS.search(str(error)))]
    name = next(iter([*names, *found]), "")
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""


def _own_words(error: BaseException) -> str:
    """The message of an error; of one in a worker process of a `DataLoader`, without its traceback."""
    words = str(error).strip()
    return words.splitlines()[-1].partition(": ")[2] if words.startswith("Caught ") else words


def _first_sentence(error: BaseException) -> str:
    """The beginning of a message, without the hints that may follow."""
    words = _own_words(error) or type(error).__name__
    return words.splitlines()[0][:200].split(". ")[0].rstrip(".")


def _explain_full_disk(path: str, error: BaseException) -> str:
    folder = next((place for place in Path(path or ".").absolute().parents if place.is_dir()), Path("."))
    free = format_bytes(shutil.disk_usage(folder).free)
    # What a file that was not finished would have needed at least.
    needed = next((note for note in getattr(error, "__notes__", []) if note.startswith("needs")), "")
    got = f"{free} free, it {needed}" if needed else f"{free} free"
    return f"{path or folder} must have room on its disk, got {got}; make room and start the command again"


def _explain_lost_worker(words: str, smaller: Mapping[str, int]) -> str:
    got = " ".join(words.splitlines()[0].split()).rstrip(".")[:200]
    found = ((name, value) for name, value in smaller.items() if name.endswith("num_workers"))
    name, value = next(found, ("num_workers", 0))
    remedy = f"add --params {name}={value}" + (
        f", or --params {name}=0 for no worker at all" if value else ""
    )
    if "timed out" in words:
        return f"workers must give each batch in time, got: {got}; {remedy}"
    shared = Path("/dev/shm")
    room = f" and {shared} ({format_bytes(shutil.disk_usage(shared).total)})" if shared.is_dir() else ""
    return f"memory{room} must be enough for every worker, got: {got}; {remedy}"


def _remedy_of(smaller: Mapping[str, int]) -> str:
    if not smaller:
        return "close other programs, or use a machine with more"
    return "add " + ", or ".join(f"--params {name}={value}" for name, value in smaller.items())


def smaller_values(node: Node, catalog: DataCatalog) -> dict[str, int]:
    """Half of each parameter of a node that costs memory, where the model of the parameters takes it.

    Args:
        node: the node.
        catalog: with its parameters.
    """
    models, found = parameter_models(), dict[str, int]()
    for name in node.inputs:
        group = name.removeprefix("params:")
        if group != name and group in models:
            values = catalog.load(name)
            values = values if isinstance(values, dict) else values.model_dump(mode="json")
            found |= {f"{group}.{path}": value for path, value in _halves(values, models[group])}
    return dict(sorted(found.items(), key=lambda item: _SIZES.index(item[0].rpartition(".")[2])))


def _halves(values: dict[str, Any], model: Any) -> Iterator[tuple[str, int]]:
    """Dotted name and half of each size in a group of parameters."""
    batch_size = (values.get("loader") or {}).get("batch_size")
    for path, value in leaves(values):
        if path.rpartition(".")[2] not in _SIZES:
            continue
        # Without micro-batches, the whole batch is one.
        present = batch_size if value is None else value
        if not present or ((half := present // 2) == 0 and not path.endswith("num_workers")):
            continue
        try:
            model.model_validate(replaced(values, path, half))
        except ValidationError:
            continue
        yield path, half
