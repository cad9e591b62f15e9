import subprocess
import sys

import pytest

# Takes and leaves 64 MiB, over and over; prints how many pages the system had to hand out.
TAKE_AND_LEAVE = """
import resource, sys
import torch
from supcon_pipeline.core.device import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(20):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_taken(way):
    command = [sys.executable, "-c", TAKE_AND_LEAVE, way]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_memory_that_was_freed_is_not_taken_from_the_system_again():
    assert pages_taken("kept") < pages_taken("returned") / 10
