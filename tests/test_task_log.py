import os
import signal
import time

import pytest

from supcon_pipeline import task_log


def test_a_second_interrupt_does_not_stop_the_record_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    def close() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        closed.append(True)

    monkeypatch.setattr(task_log, "close_interrupted", close)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        task_log._close_at_exit()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert closed == [True]
