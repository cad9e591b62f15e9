import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.conftest import ROOT

from supcon_pipeline.core.data.workers import require_short_temporary_folder
from supcon_pipeline.core.messages import InputError

# Both start two workers, say which, and wait.
POOL = """
    import multiprocessing, time
    from supcon_pipeline.core.data.packing import Packing
    from supcon_pipeline.core.data.packing_pool import PackingPool

    class Slow:
        def __reduce__(self):
            return time.sleep, (60,)

    if __name__ == "__main__":
        with PackingPool(Packing(8, 3, "pad"), 2) as pool:
            for _ in range(2):
                pool.submit([Slow()])
            while len(multiprocessing.active_children()) < 2:
                time.sleep(0.01)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            pool.take()
"""
LOADER = """
    import multiprocessing, time
    import numpy as np
    from supcon_pipeline.core.views.loading import build_loader
    from supcon_pipeline.core.views.policy import ViewPolicy

    images = np.zeros((8, 8, 8, 3), np.uint8)
    loader = build_loader(images, np.arange(8) % 2, np.arange(8), ViewPolicy([], 1), 4, 2, seed=0)
    next(loader.epoch(0))
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def is_running(pid: int) -> bool:
    """Whether a process is there; one that has ended and waits to be reaped is not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def short_folder():
    """A folder whose name leaves room for that of a socket, as `tmp_path` does not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize(("length", "is_refused"), [(75, False), (76, True)])
def test_a_temporary_folder_without_room_for_a_socket_is_refused(monkeypatch, length, is_refused):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * (length - 1))
    with pytest.raises(InputError, match="TMPDIR must be a path of at") if is_refused else nullcontext():
        require_short_temporary_folder()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("script", [POOL, LOADER], ids=["pool", "loader"])
def test_workers_end_with_the_process_that_started_them(tmp_path, short_folder, script):
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(script))
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TMPDIR": str(short_folder)}
    environment = {**os.environ, **paths}
    with subprocess.Popen(
        [sys.executable, file], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(is_running, workers))
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        left = [pid for pid in workers if is_running(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left
    assert not list(short_folder.glob("pymp-*"))
