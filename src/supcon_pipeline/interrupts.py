"""Signals that end a run."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)
# A job scheduler or `kill`; a terminal that is closed.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


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
        yield
    except _Stopped as stopped:
        logger.warning("Stopped by %s", signal.Signals(stopped.number).name)
        raise
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


class _Stopped(SystemExit):
    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    # A second one does not wait for the cleaning up.
    signal.signal(number, signal.SIG_DFL)
    raise _Stopped(number)
