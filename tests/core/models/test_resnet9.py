import pytest
import torch
from tests.core.models.families import output_sizes
from torch import nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.models.resnet9 import ResNet9


@pytest.mark.parametrize(("name", "num_features"), [("resnet9", 512), ("resnet9_half", 256)])
def test_resnet9_takes_colour_and_grey_and_one_image(name, num_features):
    for num_channels in (1, 3):
        network, found = build_backbone(name, num_channels=num_channels)
        assert network.eval()(torch.rand(1, num_channels, 8, 8)).shape == (1, found) == (1, num_features)


def test_resnet9_has_the_parameters_of_its_source():
    # 6,573,120 with a classifier of 512 x 10 without bias, as published.
    assert sum(p.numel() for p in ResNet9(64).parameters()) == 6_573_120 - 512 * 10


@pytest.mark.parametrize(
    ("stem", "sizes"), [("small_image", [64, 32, 16, 8]), ("imagenet", [32, 16, 8, 4, 2])]
)
def test_resnet9_halves_three_times_and_five_times_for_photographs(stem, sizes):
    network = build_backbone("resnet9_half", stem, image_size=64)[0]
    found = dict.fromkeys(output_sizes(network, 64, nn.Conv2d))
    assert list(found) == sizes


def test_resnet9_looks_for_each_thing_in_all_places():
    network = ResNet9(8).eval()
    images = torch.rand(2, 3, 32, 32)
    maps = network.stages(network.stem(images))
    assert maps.shape == (2, 64, 4, 4)
    torch.testing.assert_close(network(images), maps.flatten(2).max(dim=2).values / 8)


def test_resnet9_refuses_images_that_it_would_shrink_to_nothing():
    with pytest.raises(InputError, match=r"data_prep.image_size must suit resnet9 with the imagenet stem"):
        build_backbone("resnet9", "imagenet", image_size=16)
