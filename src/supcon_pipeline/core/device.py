"""The device that models are trained and evaluated on."""

import ctypes
import sys
from functools import cache

import torch

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def pick_device() -> torch.device:
    """The first GPU if PyTorch sees one, else the CPU, where freed memory is kept from then on."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for what it needs next, as far as glibc allows.

    By default, glibc returns every large block to the system, and the next layer gets it back page by page.
    A network on a CPU then spends a large part of its time on that (`benchmarks/memory.py`).
    """
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
