import copy

import pytest
import torch

from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.optim.blending import StartBlend
from supcon_pipeline.core.parameters.optim import FinetuneParameters

DESCRIPTION = {
    "kind": "contrastive",
    "backbone": "resnet_narrow",
    "stem": "small_image",
    "embedding_dim": 6,
    "mean": [0.5],
    "std": [0.25],
    "hidden_dim": 4,
    "dim": 2,
}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_encoder_lies_between_start_and_end_and_heads_are_those_of_the_end(share):
    model = build_model(DESCRIPTION)
    start, blend = copy.deepcopy(model.state_dict()), StartBlend(model, share)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    trained = copy.deepcopy(model.state_dict())
    for name, value in blend.of(model).state_dict().items():
        expected = trained[name]
        if name.startswith(("encoder.backbone.", "encoder.neck.")) and value.is_floating_point():
            expected = share * start[name] + (1 - share) * trained[name]
        torch.testing.assert_close(value, expected)
    # What is trained goes on from where it was.
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[name])


def test_before_any_training_the_blend_is_the_start():
    model = build_model(DESCRIPTION)
    for name, value in StartBlend(model, 0.5).of(model).state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


@pytest.mark.parametrize(
    ("start_images", "num_images", "share"), [(0, 10, 0), (150, 300, 1 / 3), (10, 30, 0.25)]
)
def test_the_start_counts_for_as_many_images_as_it_is_said_to(start_images, num_images, share):
    finetune = FinetuneParameters(start_images=start_images, start_classes=7)
    assert finetune.start_share(num_images, 2, has_unseen_classes=False) == pytest.approx(share)


@pytest.mark.parametrize(
    ("start_classes", "num_classes", "share"), [(0, 10, 0), (40, 40, 0.5), (10, 30, 0.25)]
)
def test_where_classes_are_unseen_it_counts_for_as_many_classes(start_classes, num_classes, share):
    finetune = FinetuneParameters(start_images=7, start_classes=start_classes)
    assert finetune.start_share(5000, num_classes, has_unseen_classes=True) == pytest.approx(share)
