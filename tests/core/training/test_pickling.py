import pickle

import pytest
import torch
from tests.core.training import launched
from torch import nn

from supcon_pipeline.core.optim.low_rank import add_low_rank_updates
from supcon_pipeline.core.training.pickling import to_bytes

pytestmark = pytest.mark.usefixtures("no_gpu")


class Attending(nn.Module):
    """A network with layers of both kinds that LoRA updates."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(4, 2), nn.Linear(4, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(self.attention(rows, rows, rows)[0])
        return outputs


@pytest.mark.parametrize("has_updates", [False, True])
def test_a_model_with_low_rank_updates_is_the_same_in_another_process(has_updates: bool) -> None:
    model = Attending()
    if has_updates:
        add_low_rank_updates(model, rank=2, alpha=4, dropout=0.0)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
    again = pickle.loads(to_bytes(model))
    rows = torch.randn(5, 4)
    assert torch.equal(again(rows), model(rows))
    pairs = zip(again.named_parameters(), model.named_parameters(), strict=True)
    for (name, value), (expected_name, expected) in pairs:
        assert (name, value.requires_grad) == (expected_name, expected.requires_grad)
        assert torch.equal(value, expected)
        # What one process trains, another must not see.
        assert not value.is_shared()
    assert list(again.state_dict()) == list(model.state_dict())


def test_a_stage_is_the_same_in_another_process() -> None:
    stage = launched.make_stage()
    assert pickle.loads(to_bytes(stage)).identity() == stage.identity()
