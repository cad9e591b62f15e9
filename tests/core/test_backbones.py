import math

import pytest
import torch
import torchvision
from torch import nn

from supcon_pipeline.core.backbones import BACKBONES, NarrowResNet, build_backbone

WIDTHS = {"resnet_narrow": 256, "resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}


def output_size(network, module, image_size):
    """The side of what a module of the network gives for a square image."""
    sizes = []
    module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[-1]))
    with torch.inference_mode():
        network.eval()(torch.rand(1, 3, image_size, image_size))
    return sizes[0]


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_gives_as_many_features_as_it_says(name):
    network, num_features = build_backbone(name)
    with torch.inference_mode():
        features = network.eval()(torch.rand(2, 3, 8, 8))
    assert features.shape == (2, num_features) == (2, WIDTHS[name])


@pytest.mark.parametrize("name", ["resnet_narrow", "resnet18"])
@pytest.mark.parametrize("stem", ["small_image", "imagenet"])
def test_grey_images_work_with_every_stem(name, stem):
    network, num_features = build_backbone(name, stem, num_channels=1)
    assert network.eval()(torch.rand(1, 1, 16, 16)).shape == (1, num_features)


@pytest.mark.parametrize(("stem", "size"), [("small_image", 16), ("imagenet", 4)])
def test_the_small_image_stem_keeps_the_resolution_that_the_imagenet_stem_divides_by_four(stem, size):
    network, _ = build_backbone("resnet18", stem)
    assert output_size(network, network.layer1, image_size=16) == size


def test_the_imagenet_stem_gives_torchvisions_own_network():
    network, _ = build_backbone("resnet18", "imagenet")
    reference = torchvision.models.resnet18()
    missing = reference.load_state_dict(network.state_dict(), strict=False)
    reference.fc = nn.Identity()
    images = torch.rand(2, 3, 32, 32)
    assert missing.missing_keys == ["fc.weight", "fc.bias"]
    assert missing.unexpected_keys == []
    assert torch.equal(network.eval()(images), reference.eval()(images))


def test_the_narrow_network_has_the_parameters_counted_by_hand():
    stem = 3 * 9 * 8 + 2 * 8
    first_stage = 2 * (8 * 9 * 8 + 2 * 8)
    second_stage = 8 * 9 * 16 + 2 * 16 + 16 * 9 * 16 + 2 * 16
    shortcut = 8 * 16 + 2 * 16
    network = NarrowResNet(widths=(8, 16))
    assert sum(p.numel() for p in network.parameters()) == stem + first_stage + second_stage + shortcut


@pytest.mark.parametrize(("stem_stride", "size"), [(2, 2), (1, 4)])
def test_the_narrow_network_leaves_two_by_two_of_32_pixels_or_twice_that_without_a_halving_stem(
    stem_stride, size
):
    network = NarrowResNet(widths=(4, 4, 4, 4), stem_stride=stem_stride)
    assert output_size(network, network.stages, image_size=32) == size


def test_the_narrow_network_starts_with_weights_scaled_to_their_fan_out():
    weights = NarrowResNet().stages[-1].conv2.weight
    assert weights.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)


@pytest.mark.parametrize(
    ("name", "stem", "message"),
    [
        ("resnet19", "small_image", "backbone.name must be one of resnet_narrow, .*, got 'resnet19'"),
        ("resnet18", "tiny", "backbone.stem must be one of small_image, imagenet, got 'tiny'"),
        ("resnet_narrow", "tiny", "backbone.stem must be one of small_image, imagenet, got 'tiny'"),
    ],
)
def test_an_unknown_name_or_stem_is_refused(name, stem, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, stem)
