"""Claims: which running process works on what, so that no two do the same at once."""

import getpass
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from supcon_pipeline.core.messages import InputError, name_some

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Seconds to wait for a claim that may belong to a process that is just ending.
_PATIENCE = 2


class Claim:
    """What this process works on, until it is released or the process ends, however it ends.

    The system holds a lock for each claim while its process is there, so that of a killed one counts
    no longer. Processes on other machines are not seen.

    Args:
        place: what is worked in, a folder that need not exist; nothing is written there.
        names: what is claimed.
        kind: what the names are, for the message.

    Raises:
        InputError: where another process holds one of the names, with that process.
        OSError: where the system refuses to write the claim, as on a full disk, with the path.
    """

    def __init__(self, place: Path, names: Iterable[str], kind: str):
        from filelock import FileLock

        names = sorted(names)
        folder = _folder_of(place)
        path = folder / uuid4().hex
        self._lock, self._holder = FileLock(path.with_suffix(".lock")), path.with_suffix(".json")
        # One process at a time looks at the others and claims.
        with FileLock(folder / "all"):
            for holder in folder.glob("*.json"):
                _require_free(holder, set(names), kind)
            self._lock.acquire()
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            self._write({"pid": os.getpid(), "since": since, "names": names})

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self._holder.write_text(json.dumps(record), "utf-8")
        except OSError as error:
            self.release()
            # A file that is open does not say its name when it refuses to be written.
            error.filename = error.filename or str(self._holder)
            raise

    def release(self) -> None:
        """Let others have it."""
        self._holder.unlink(missing_ok=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def waiting_turn(place: Path) -> "BaseFileLock":
    """A block that one process at a time is in, for each place; the others wait.

    Args:
        place: as for `Claim`.
    """
    from filelock import FileLock

    return FileLock(_folder_of(place) / "turn")


def _folder_of(place: Path) -> Path:
    """The folder of the claims on what is in a place, of this user on this machine."""
    digest = hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"supcon_pipeline-{_user()}", digest)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _user() -> str:
    """The name of this user, or the number where it has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _require_free(holder: Path, names: set[str], kind: str) -> None:
    """Refuse names that another running process holds; remove the claim of one that has ended."""
    from filelock import FileLock, Timeout

    try:
        record = json.loads(holder.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        # Just released, or its process was killed while it wrote.
        record = {"pid": os.getpid(), "names": []}
    shared = sorted(names & set(record["names"])) if record["pid"] != os.getpid() else []
    lock = FileLock(holder.with_suffix(".lock"))
    try:
        with lock.acquire(timeout=_PATIENCE if shared else 0):
            holder.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        if shared:
            raise InputError(
                f"{kind} {name_some(shared, 1)} must be made by one process at a time, got process "
                f"{record['pid']} of {socket.gethostname()}, which has been at it since {record['since']}; "
                "wait for it to end"
            ) from None
