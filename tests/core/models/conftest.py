import pytest
import torch
from torch import nn


@pytest.fixture
def quick_start(monkeypatch):
    """Large networks that start and run quickly, where the numbers do not matter."""

    def draw(tensor, *_args, **_options):
        with torch.no_grad():
            return tensor.uniform_(-0.05, 0.05)

    for name in ("trunc_normal_", "normal_", "kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, name, draw)
    num_threads = torch.get_num_threads()
    # Threads would wait for one another at every one of many tiny layers.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
