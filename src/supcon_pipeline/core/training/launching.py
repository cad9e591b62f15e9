"""Several processes for one piece of work, started again together where one of them is lost."""

import logging
import os
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.data.workers import end_with_parent
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.ranks import LostProcessError, join_ranks
from supcon_pipeline.core.training.hosts import MEETING_LIMIT, ONE_HOST, Hosts, Launch, Meeting, require_own
from supcon_pipeline.core.training.pickling import from_bytes, to_bytes

logger = logging.getLogger(__name__)
# How often the processes are started again before the work is given up.
MAX_RESTARTS = 3
# It looks ten times a second.
_LAUNCHER_SECONDS = 5
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
_LAUNCHERS = ("torch.distributed.elastic", "torch.multiprocessing", "torchelastic-events-null")
# Files that the processes of a launch share.
_WORK, _FAILURE = "work", "failure"
_PACKAGE = __name__.partition(".")[0]


def launch(
    work: Callable[..., None], count: int, parameter: str, seed: int, folder: Path, *arguments: Any
) -> None:
    """Call `work(ranks, *arguments)` in each of several processes, and wait until all have ended.

    Where one is killed, all are started again. An error is that of this process; what the first of them logs
    is logged here. Of several hosts, each starts as many processes; this one is the first.

    Args:
        work: a function of a module. It must find by itself where it left off.
        count: number of processes on each host.
        parameter: dotted name of the parameter that chose it, for messages.
        seed: of what each process draws for itself.
        folder: that all hosts see, for what they share.
        arguments: anything that pickles.

    Raises:
        InputError: where processes are killed again and again; or what one of them raises.
    """
    packed, meeting = to_bytes((work, count, seed, arguments)), Meeting.current
    with tempfile.TemporaryDirectory(dir=folder if meeting else None, prefix="launch-") as shared:
        failure = Path(shared, _FAILURE)
        if meeting is None:
            _run_processes(packed, failure, count, parameter)
            return
        Path(shared, _WORK).write_bytes(packed)
        told = Launch(count, _free_port(), shared)
        with meeting.announced(told):
            _run_processes(packed, failure, count, parameter, meeting.hosts, told.port)


def follow(hosts: Hosts) -> None:
    """Be another than the first of several hosts: take part in its trainings until its run is over.

    Raises:
        InputError: where the first host does not appear, or is gone, or shares no disk with this one; or
            what one of the processes here raises.
    """
    logger.info("Host %d of %d waits for the trainings of %s", hosts.number + 1, hosts.count, hosts.address)
    meeting = Meeting(hosts)
    try:
        for told in meeting.launches():
            folder = require_own(Path(told.folder))
            logger.info("Taking part in a training, with processes here: %d", told.processes)
            packed = (folder / _WORK).read_bytes()
            _run_processes(packed, folder / _FAILURE, told.processes, "processes", hosts, told.port)
    finally:
        meeting.leave()


def _run_processes(
    packed: bytes, failure: Path, count: int, parameter: str, hosts: Hosts = ONE_HOST, port: int = 0
) -> None:
    """Start the processes of this host, and wait until they have ended.

    Raises:
        InputError: where they are killed again and again, or other hosts do not answer; or what one of them
            has left as its failure.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with (
        tempfile.TemporaryDirectory() as log_folder,
        _showing_log() as log_end,
        _silent_launcher(),
        _own_signals() as signals,
    ):
        config = _launch_config(count, hosts, port, log_folder, signals)
        try:
            elastic_launch(config, _enter)(packed, str(failure), log_end)
        except (ChildFailedError, DistError) as error:
            if not failure.exists():
                _raise_if_lost(error, parameter, hosts)
                raise
        if failure.exists():
            # Written by the processes alone: the folder is closed to other users.
            raise from_bytes(failure.read_bytes())


def _launch_config(count: int, hosts: Hosts, port: int, log_folder: str, signals: list[str]) -> Any:
    """How the launcher starts the processes of this host."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    where: dict[str, Any] = {
        "rdzv_backend": "c10d",
        "rdzv_endpoint": "localhost:0",
        "local_addr": "localhost",
    }
    if hosts.count > 1:
        # The processes of the first host have the lowest ranks.
        where = {
            "rdzv_backend": "static",
            "rdzv_endpoint": f"{hosts.address}:{port}",
            "rdzv_configs": {"rank": hosts.number, "timeout": MEETING_LIMIT.seconds},
        }
    return LaunchConfig(
        *(hosts.count, hosts.count, count),
        run_id=str(port) if port else uuid4().hex,
        max_restarts=MAX_RESTARTS,
        signals_to_handle=",".join(signals),
        logs_specs=DefaultLogsSpecs(log_dir=log_folder),
        **where,
    )


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        port: int = listening.getsockname()[1]
    return port


def _raise_if_lost(error: Any, parameter: str, hosts: Hosts) -> None:
    """Tell that processes were killed, or that another host does not answer, in one line.

    Raises:
        InputError: unless neither was the case.
    """
    number = -error.get_first_failure()[1].exitcode if hasattr(error, "get_first_failure") else 0
    if number > 0:
        raise InputError(
            f"{parameter} must be processes that live to the end, got {MAX_RESTARTS + 1} ended by "
            f"{signal.Signals(number).name}, as a system does that lacks memory; add --params {parameter}=1"
        ) from error
    if hosts.count > 1:
        raise InputError(
            f"all {hosts.count} hosts must answer one another to the end, got none from one of them; look at "
            "what the others say, and start the same command again on all: trainings resume"
        ) from error


def _enter(packed: bytes, failure: str, log_end: Connection) -> None:
    """What each process does."""
    if Path(failure).exists():
        # It would happen again.
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
    try:
        work, count, seed, arguments = from_bytes(packed)
        # What is imported by then may have configured the log.
        _log_to(log_end)
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
        attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        ranks = join_ranks(seed, attempt)
        if attempt:
            logger.warning("A process was lost: all %d go on from what was saved last", ranks.count)
        work(ranks, *arguments)
        torch.distributed.destroy_process_group()
    except LostProcessError:
        # So that the launcher first sees who was lost, and ends this one.
        time.sleep(_LAUNCHER_SECONDS)
        raise SystemExit(1) from None
    except Exception as error:
        with atomic_path(Path(failure)) as temporary:
            temporary.write_bytes(pack_error(error))
        # Of an error, the launcher would leave a file in the temporary folder.
        raise SystemExit(1) from None


def pack_error(error: Exception) -> bytes:
    """An error for another process, pickled; a fault of the program has its traceback as a note."""
    if not isinstance(error, InputError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        packed = to_bytes(error)
        from_bytes(packed)
    except Exception:
        # Not every error of a library pickles.
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.add_note("".join(traceback.format_exception(error)))
        return to_bytes(told)
    return packed


@contextmanager
def _own_signals() -> Iterator[list[str]]:
    """Names of the signals that the launcher may handle; what handled them does so again afterwards."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    is_main = threading.current_thread() is threading.main_thread()
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in _ENDING if is_main}
    handled = {name: handler for name, handler in handlers.items() if handler != signal.SIG_IGN}
    stopped_by = None
    try:
        yield list(handled)
    except SignalException as stopped:
        stopped_by = stopped.sigval
    finally:
        for name, handler in handled.items():
            signal.signal(getattr(signal, name), handler)
    if stopped_by is not None:
        signal.raise_signal(stopped_by)


class _LogEnd:
    """A connection as the queue that logging writes to."""

    def __init__(self, connection: Connection):
        self.put_nowait = connection.send


def _log_to(log_end: Connection) -> None:
    """Send what the first process logs, and that alone; the others would say the same.

    Processes that begin as the program did have configured the log as it has, and would show it themselves.
    """
    is_first = os.environ["RANK"] == "0"
    handler = QueueHandler(_LogEnd(log_end)) if is_first else logging.NullHandler()  # type: ignore[arg-type]
    for name in list(logging.root.manager.loggerDict):
        if f"{name}.".startswith(f"{_PACKAGE}."):
            own = logging.getLogger(name)
            own.handlers, own.propagate = [], True
    logging.root.handlers = [handler]
    logging.getLogger(_PACKAGE).setLevel(logging.INFO)


@contextmanager
def _showing_log() -> Iterator[Connection]:
    """An end of a pipe for records, which are logged in this process.

    A record is written at once if it has no more than 4,096 bytes: no process that is killed leaves a part.
    """
    reader, writer = Pipe(duplex=False)
    thread = threading.Thread(target=_show_log, args=(reader,), name="log of processes", daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        writer.close()
        thread.join()
        reader.close()


@contextmanager
def _silent_launcher() -> Iterator[None]:
    """Do not show what the launcher says of processes that end: it ends in an error, or they go on."""
    launchers = [logging.getLogger(name) for name in _LAUNCHERS]
    silence = logging.NullHandler()
    for launcher in launchers:
        launcher.addHandler(silence)
        launcher.propagate = False
    try:
        yield
    finally:
        for launcher in launchers:
            launcher.removeHandler(silence)
            launcher.propagate = True


def _show_log(reader: Connection) -> None:
    while True:
        try:
            record = reader.recv()
        except (EOFError, OSError):
            return
        shown = logging.getLogger(record.name)
        if shown.isEnabledFor(record.levelno):
            shown.handle(record)
