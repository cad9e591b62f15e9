"""Signals that end a run."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from supcon_pipeline.commands import causes

logger = logging.getLogger(__name__)
# A job scheduler or `kill`; a terminal that is closed.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
# Seconds after which a signal that Python has lost is sent again.
_AGAIN = 0.1


@contextmanager
def unwinding_on_signals() -> Iterator[None]:
    """Let a signal end the block as an exception, so that unfinished files and workers are cleaned up.

    Signals that something else handles, or ignores as `nohup` does, are left as they are.

    Raises:
        SystemExit: at a signal, with the status that a shell gives for it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handled = [number for number in _ENDING if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, _stop)
    try:
        with _repeating_lost_signals() if is_main else nullcontext():
            yield
    except BaseException as error:
        stopped = find_stop(error)
        if stopped is None:
            raise
        if isinstance(stopped, _Stopped):
            logger.warning("Stopped by %s", signal.Signals(stopped.number).name)
        raise stopped from None
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def find_stop(error: BaseException) -> BaseException | None:
    """The stop that an error came from: a module that is just imported raises one of its own instead."""
    return next((cause for cause in causes(error) if isinstance(cause, _Stopped | KeyboardInterrupt)), None)


@contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let Ctrl-C, which many press more than once, not end a block that is short and cleans up."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Stopped(SystemExit):
    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    # A second one does not wait for the cleaning up.
    signal.signal(number, signal.SIG_DFL)
    # Where a group of processes is stopped, workers end too, and torch would raise an error for each.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    raise _Stopped(number)


@contextmanager
def _repeating_lost_signals() -> Iterator[None]:
    """Send a signal again whose exception Python has ignored.

    It does so where no caller could see one: while a process forks, as for each worker, and in a `__del__`.
    """
    before = sys.unraisablehook

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        error = ignored.exc_value
        if isinstance(error, _Stopped):
            signal.signal(error.number, _stop)
            _send_again(error.number)
        elif isinstance(error, KeyboardInterrupt):
            _send_again(signal.SIGINT)
        else:
            before(ignored)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _send_again(number: int) -> None:
    timer = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
