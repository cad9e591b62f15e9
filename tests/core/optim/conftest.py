import pytest
import torch
from torch import nn


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 9, 4))


@pytest.fixture
def batch():
    return torch.randn(16, 2, 5, 5), torch.randn(16, 4)
