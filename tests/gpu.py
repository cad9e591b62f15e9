"""Tests that need a GPU, and tests that must not see one."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

CUDA = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@contextmanager
def hidden_gpus() -> Iterator[None]:
    """No GPU in sight of this process and of those that it starts: for bits that a CPU alone repeats."""
    with pytest.MonkeyPatch.context() as patch:
        # Read by CUDA once; by now this process has done so.
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        yield


@contextmanager
def refused_syncs() -> Iterator[None]:
    """An error where the CPU would wait for the GPU."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        # Torch warns that it does not notice every wait.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
