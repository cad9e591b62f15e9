import math

import pytest
import torch
from tests.core.models.families import output_sizes
from torchvision.models.resnet import BasicBlock

from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.models.narrow_resnet import NarrowResNet


def test_the_narrow_network_takes_colour_and_grey_and_one_image():
    for num_channels in (1, 3):
        network, num_features = build_backbone("resnet_narrow", num_channels=num_channels)
        assert network.eval()(torch.rand(1, num_channels, 8, 8)).shape == (1, num_features) == (1, 256)


def test_the_narrow_network_has_the_parameters_counted_by_hand():
    def block(width_in, width):
        return width_in * 9 * width + 2 * width + width * 9 * width + 2 * width

    stem = 3 * 9 * 32 + 2 * 32
    stages = block(32, 32) + block(32, 64) + block(64, 128) + block(128, 256)
    shortcuts = 32 * 64 + 2 * 64 + 64 * 128 + 2 * 128 + 128 * 256 + 2 * 256
    assert sum(p.numel() for p in NarrowResNet().parameters()) == stem + stages + shortcuts


@pytest.mark.parametrize(("stem", "sizes"), [("small_image", [32, 16, 8, 4]), ("imagenet", [16, 8, 4, 2])])
def test_the_stem_of_the_narrow_network_halves_once_for_small_images_and_twice_for_photographs(stem, sizes):
    network, _ = build_backbone("resnet_narrow", stem)
    assert output_sizes(network, 64, BasicBlock) == sizes


def test_both_stems_of_the_narrow_network_take_the_same_weights():
    small, large = (build_backbone("resnet_narrow", stem)[0] for stem in ("small_image", "imagenet"))
    large.load_state_dict(small.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert not torch.allclose(large.eval()(images), small.eval()(images))


def test_the_narrow_network_starts_with_weights_scaled_to_their_fan_out():
    weights = NarrowResNet().stages[-1].conv2.weight
    assert weights.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)
