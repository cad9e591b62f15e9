"""The device that models are trained and evaluated on."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int

_Result = TypeVar("_Result")

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def pick_device() -> torch.device:
    """The first GPU if PyTorch sees one, else the CPU, where freed memory is kept from then on."""
    if gpu := find_gpu():
        return gpu
    keep_freed_memory()
    return torch.device("cpu")


def find_gpu() -> torch.device | None:
    """The first GPU if PyTorch sees one."""
    return torch.device("cuda") if torch.cuda.is_available() else None


def free_memory(gpu: torch.device) -> int:
    """Bytes that are free on a GPU, with those that PyTorch keeps for what it needs next."""
    kept = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return int(torch.cuda.mem_get_info(gpu)[0]) + kept


def in_parts(
    call: Callable[[Int[np.ndarray, " rows"]], _Result], rows: Int[np.ndarray, " rows"]
) -> list[_Result]:
    """What a call returns for all rows at once, or for each half, and so on, where the GPU's memory is short.

    Raises:
        torch.OutOfMemoryError: if memory does not last for a single row.
    """
    try:
        return [call(rows)]
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    # Outside of the handler, the memory of what failed is free again.
    half = len(rows) // 2
    return [*in_parts(call, rows[:half]), *in_parts(call, rows[half:])]


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
