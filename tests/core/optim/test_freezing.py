import pytest
import torch
from torch import nn

from supcon_pipeline.core.optim.freezing import Freezing


@pytest.fixture
def model():
    model = nn.Module()
    model.encoder = nn.Module()
    model.encoder.backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model.head = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    return model.train()


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_in_the_first_epochs_only_the_heads_are_trained(model):
    freezing = Freezing(freeze_epochs=2, freeze_batch_norm=False)
    names = []
    for epoch in range(4):
        model.train()
        freezing.apply(model, epoch)
        names.append(trained(model))
        assert model.encoder.backbone.training is (epoch >= 2)
        assert model.head.training
    heads = {name for name in names[3] if name.startswith("head.")}
    assert names == [heads, heads, names[3], names[3]]
    assert len(names[3]) == 8


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights(model):
    Freezing(freeze_epochs=0, freeze_batch_norm=True).apply(model, 0)
    linear, norm, dropout = model.encoder.backbone
    assert (linear.training, norm.training, dropout.training, model.head[1].training) == (
        True,
        False,
        True,
        True,
    )
    model.encoder.backbone(torch.randn(8, 2))
    assert norm.num_batches_tracked == 0
    assert norm.weight.requires_grad
