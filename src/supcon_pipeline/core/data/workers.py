"""What worker processes have in common."""

import os
import shutil
import signal
import tempfile
from multiprocessing import parent_process
from multiprocessing.util import get_temp_dir
from threading import Thread

from supcon_pipeline.core.messages import InputError


def prepare_worker(_worker: int = 0) -> None:
    """Keep OpenCV to one thread in this process, and leave it to its parent when it ends.

    There is a worker for each core that is to be used. The workers of a torch `DataLoader` keep torch to one
    thread by themselves; others do not load it.
    """
    import cv2

    cv2.setNumThreads(0)
    # Ctrl-C reaches every process of a terminal. The parent stops its workers, and one message is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker waits for work without end: nothing else tells it that its parent was killed.
    end_with_parent()


def end_with_parent() -> None:
    """Let this process end as soon as its parent does, however that ends."""
    Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def require_short_temporary_folder() -> None:
    """Refuse a temporary folder in which workers could hand over no batch: they would wait without end.

    Raises:
        InputError: where the socket that Python makes there would have too long a name.
    """
    folder = tempfile.gettempdir()
    # The system allows 107 bytes, of which Python takes these: `/pymp-12345678/listener-12345678`.
    longest = 107 - len("/pymp-12345678/listener-12345678")
    if len(os.fsencode(folder)) > longest:
        raise InputError(
            f"TMPDIR must be a path of at most {longest} bytes where workers are used, got {folder!r}; "
            "type: export TMPDIR=/tmp"
        )


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        # Torch hands batches over by a socket in this folder, which nobody else removes.
        shutil.rmtree(get_temp_dir(), ignore_errors=True)
        os._exit(1)
