import os
import signal
import sys
import time
from pathlib import Path

import pytest

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.interrupts import unwinding_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_with_its_files_cleaned_up(
    tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    # Whoever starts the tests may have it ignored, as nohup does.
    signal.signal(number, signal.SIG_DFL)

    def write_half() -> None:
        with unwinding_on_signals(), atomic_path(tmp_path / "file") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(60)

    with pytest.raises(SystemExit) as stopped:
        write_half()
    assert stopped.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == [f"Stopped by {signal.Signals(number).name}"]
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit), (signal.SIGINT, KeyboardInterrupt)],
)
def test_a_signal_that_comes_where_python_ignores_exceptions_still_ends_a_run(
    number: int, raised: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(
        number, signal.default_int_handler if raised is KeyboardInterrupt else signal.SIG_DFL
    )

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def wait() -> None:
        with unwinding_on_signals():
            Dying()
            time.sleep(10)

    hook = sys.unraisablehook
    try:
        with pytest.raises(raised):
            wait()
    finally:
        signal.signal(number, before)
    assert sys.unraisablehook is hook
    assert "Traceback" not in capsys.readouterr().err


def test_a_worker_that_ends_by_the_same_signal_is_no_error_while_a_run_is_cleaned_up() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Terminated.")

    def stop() -> None:
        with unwinding_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            finally:
                os.kill(os.getpid(), signal.SIGCHLD)
                time.sleep(0.01)

    before = signal.signal(signal.SIGCHLD, fail)
    try:
        with pytest.raises(SystemExit, match="143"):
            stop()
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("number", "raised", "told"),
    [(signal.SIGTERM, SystemExit, ["Stopped by SIGTERM"]), (signal.SIGINT, KeyboardInterrupt, [])],
)
def test_a_library_that_raises_an_error_of_its_own_at_a_signal_does_not_hide_it(
    number: int,
    raised: type[BaseException],
    told: list[str],
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    # A background job ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def stop() -> None:
        with unwinding_on_signals():
            try:
                os.kill(os.getpid(), number)
                time.sleep(10)
            except raised as error:
                # As modules in C++ do while they are imported.
                raise ImportError("initialization failed") from error

    with pytest.raises(raised):
        stop()
    assert caplog.messages == told


def test_a_signal_that_is_handled_elsewhere_is_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with unwinding_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
