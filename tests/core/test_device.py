import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.gpu import CUDA, needs_gpu

from supcon_pipeline.core.device import find_gpu, free_memory, in_parts, pick_device, wait_for

# Takes and leaves 64 MiB, over and over, before and after; prints how many pages the system had to hand out.
TAKE_AND_LEAVE = """
import resource
import torch
from supcon_pipeline.core.device import keep_freed_memory

def pages_taken():
    for _ in range(20):
        torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = pages_taken()
keep_freed_memory()
print(pages_taken(), returned)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_memory_that_was_freed_is_not_taken_from_the_system_again():
    command = [sys.executable, "-c", TAKE_AND_LEAVE]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    kept, returned = map(int, done.stdout.split())
    assert kept < returned / 10


def squares_of_few(rows):
    if len(rows) > 3:
        raise torch.OutOfMemoryError("out of memory")
    return rows**2


def test_rows_for_which_memory_does_not_last_are_taken_in_parts_in_order():
    rows = np.arange(10)
    parts = in_parts(squares_of_few, rows)
    assert [len(part) for part in parts] == [2, 3, 2, 3]
    assert np.concatenate(parts).tolist() == (rows**2).tolist()
    assert len(in_parts(squares_of_few, rows[:3])) == 1


def test_one_row_for_which_memory_does_not_last_is_an_error():
    def fail(_):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_parts(fail, np.arange(10))


@needs_gpu
def test_memory_that_pytorch_keeps_for_what_comes_next_counts_as_free():
    gpu = find_gpu()
    block = torch.empty(2**28, dtype=torch.uint8, device=gpu)
    while_held = free_memory(gpu)
    del block
    assert free_memory(gpu) >= while_held + 2**28


@needs_gpu
def test_what_a_gpu_was_given_is_done_after_a_wait():
    torch.cuda.synchronize()
    torch.cuda._sleep(10**8)
    done = torch.cuda.Event()
    done.record()
    assert not done.query()
    wait_for(pick_device())
    assert done.query()
    wait_for(torch.ones(1, device=CUDA).device)
