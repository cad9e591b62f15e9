import pytest
from timm.layers.drop import DropPath
from torchvision.ops import StochasticDepth

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import build_backbone


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny", "swin_t"])
def test_the_rate_of_a_torchvision_network_rises_from_0_to_the_given_one(name):
    network, _ = build_backbone(name, "imagenet", image_size=64, drop_path=0.4)
    rates = [module.p for module in network.modules() if isinstance(module, StochasticDepth)]
    steps = len(rates) - 1
    assert rates == pytest.approx([0.4 * index / steps for index in range(len(rates))])


def test_the_rate_of_a_timm_network_is_that_of_its_last_branch():
    network, _ = build_backbone("timm/tf_efficientnet_lite0", "imagenet", image_size=64, drop_path=0.4)
    rates = [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates)
    # timm counts a block beyond the last.
    assert rates[-1] == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize("name", ["resnet_narrow", "resnet18", "timm/vgg11", "timm/densenet121"])
def test_a_network_without_drop_path_is_refused(name):
    message = rf"stage1\.finetune\.drop_path must be null for {name}, got 0\.1; it has no drop path: use"
    with pytest.raises(InputError, match=message):
        build_backbone(name, "imagenet", image_size=64, drop_path=0.1)
