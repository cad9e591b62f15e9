import copy

import pytest
import torch

from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.optim.blending import StartBlend

DESCRIPTION = {
    "kind": "contrastive",
    "backbone": "resnet_narrow",
    "stem": "small_image",
    "mean": [0.5],
    "std": [0.25],
    "hidden_dim": 4,
    "dim": 2,
}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_backbone_lies_between_start_and_end_and_heads_are_those_of_the_end(share):
    model = build_model(DESCRIPTION)
    start, blend = copy.deepcopy(model.state_dict()), StartBlend(model, share)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    trained = copy.deepcopy(model.state_dict())
    for name, value in blend.of(model).state_dict().items():
        expected = trained[name]
        if name.startswith("encoder.backbone.") and value.is_floating_point():
            expected = share * start[name] + (1 - share) * trained[name]
        torch.testing.assert_close(value, expected)
    # What is trained goes on from where it was.
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[name])


def test_before_any_training_the_blend_is_the_start():
    model = build_model(DESCRIPTION)
    for name, value in StartBlend(model, 0.5).of(model).state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
