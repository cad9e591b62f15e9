"""Several hosts that train together: who they are, and what the first tells the others."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

from supcon_pipeline.core.messages import InputError

COUNT, NUMBER, RENDEZVOUS = "SUPCON_HOSTS", "SUPCON_HOST", "SUPCON_RENDEZVOUS"
# How long hosts wait for one another.
MEETING_LIMIT = timedelta(minutes=10)
# How long the first waits, at its end, for the others to hear of it.
_PARTING_SECONDS = 30
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Hosts:
    """The hosts that train together, as one of them sees them.

    Args:
        count: number of hosts.
        number: of this host, from 0.
        address: of the first, for all.
        port: of the first, on which it tells the others what to do.
    """

    count: int = 1
    number: int = 0
    address: str = "localhost"
    port: int = 0

    @classmethod
    def of(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """The hosts that variables of the environment name; this one alone where they name none.

        Raises:
            InputError: where a variable is missing or makes no sense.
        """
        if not variables.get(COUNT):
            return cls()
        count = _whole(variables, COUNT, 1, None)
        if count == 1:
            return cls()
        number = _whole(variables, NUMBER, 0, count - 1)
        address, _, port = variables.get(RENDEZVOUS, "").rpartition(":")
        if not address or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise InputError(
                f"{RENDEZVOUS} must be <address>:<port> of the first host, the same on all, got "
                f"'{variables.get(RENDEZVOUS, '')}'; set {RENDEZVOUS}=<its name>:29500"
            )
        return cls(count, number, address, int(port))


ONE_HOST = Hosts()


def _whole(variables: Mapping[str, str], name: str, least: int, most: int | None) -> int:
    text = variables.get(name, "")
    if text.isdecimal() and int(text) >= least and (most is None or int(text) <= most):
        return int(text)
    contract = f"at least {least}" if most is None else f"from {least} to {most}, another on each host"
    raise InputError(f"{name} must be {contract}, got '{text}'; set {name}={least}")


@dataclass(frozen=True)
class Launch:
    """What the first host tells the others of a training.

    Args:
        processes: on each host.
        port: of the first host, on which the launchers of all meet.
        folder: what they share, on a disk that all hosts see.
    """

    processes: int
    port: int
    folder: str


class Meeting:
    """Where the hosts meet for as long as a run takes.

    Args:
        hosts: all of them; the first opens it, and the others wait for that.

    Raises:
        InputError: where the first does not appear, or its port is taken.
    """

    # Of the run that this process is at.
    current: ClassVar[Self | None] = None

    def __init__(self, hosts: Hosts):
        # Of a connection that is lost, torch would show the call stack. It reads this once.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

        self.hosts, self._count = hosts, 0
        try:
            self._store = TCPStore(
                hosts.address,
                hosts.port,
                is_master=hosts.number == 0,
                timeout=MEETING_LIMIT,
                wait_for_workers=False,
            )
        except (DistError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{RENDEZVOUS} must be a free port of the first host that all hosts reach, got "
                f"{hosts.address}:{hosts.port} ({reason}); set another, and start the hosts again"
            ) from error

    @contextmanager
    def announced(self, launch: Launch) -> Iterator[None]:
        """Tell the others of a training, and of its end."""
        number, self._count = self._count, self._count + 1
        self._store.set(f"launch {number}", json.dumps(vars(launch)))
        try:
            yield
        finally:
            self._store.set(f"done {number}", "")

    def launches(self) -> Iterator[Launch]:
        """The trainings of the first host that are not done, until its run is over.

        Raises:
            InputError: where the first host is gone.
        """
        from torch.distributed import DistError

        while True:
            key = f"launch {self._count}"
            try:
                while not self._store.check([key]):
                    if self._store.check(["over"]):
                        return
                    time.sleep(_POLL_SECONDS)
                told, is_done = self._store.get(key), self._store.check([f"done {self._count}"])
            except (DistError, RuntimeError) as error:
                raise InputError(
                    "the first host must run until the others are done, got no answer from "
                    f"{self.hosts.address}:{self.hosts.port}; start the same command again on all hosts: "
                    "trainings resume"
                ) from error
            self._count += 1
            if not is_done:
                yield Launch(**json.loads(told))

    def leave(self) -> None:
        """Let the first not wait for this host any longer."""
        from torch.distributed import DistError

        with suppress(DistError, RuntimeError):
            self._store.add("left", 1)

    def close(self, patience: float) -> None:
        """Tell the others that the run is over, and give them so many seconds to hear it."""
        self._store.set("over", "")
        deadline = time.monotonic() + patience
        while self._store.add("left", 0) < self.hosts.count - 1 and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


@contextmanager
def meeting_others(hosts: Hosts) -> Iterator[None]:
    """Be the first of these hosts, to which the others listen; of one host alone, nothing happens."""
    if hosts.count == 1:
        yield
        return
    Meeting.current, patience = Meeting(hosts), 0
    try:
        yield
        patience = _PARTING_SECONDS
    finally:
        Meeting.current.close(patience)
        Meeting.current = None


def require_meeting() -> None:
    """Make sure that nothing runs on each of several hosts as if it were alone.

    Raises:
        InputError: where there are several and this process is not the first, to which the others listen.
    """
    if Meeting.current is None and (hosts := Hosts.of()).count > 1:
        raise InputError(
            f"{COUNT} must be 1 where something other than `kedro run` starts the pipelines, got "
            f"{hosts.count}; type: unset {COUNT}"
        )


def require_own(folder: Path) -> Path:
    """The place itself of a folder that another host named, if nobody else can have written into it.

    A link is followed once, before anything is looked at: whoever owns it cannot lead elsewhere afterwards.

    Raises:
        InputError: where it is not there, or others can enter it.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise InputError(
            f"data must lie at the same path on a disk that all hosts share, got no folder {folder} here; "
            "mount the project of the first host there"
        )
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise InputError(
            f"{folder} must be closed to other users, got one of user {state.st_uid} with mode "
            f"{state.st_mode & 0o777:o}; start all hosts as the same user"
        )
    return folder
