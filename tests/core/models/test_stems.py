import pytest
import torch
import torchvision
from safetensors.torch import save_file
from tests.core.models.families import FAMILIES, input_convolution, output_sizes
from torch import nn

from supcon_pipeline.core.models.backbones import build_backbone

TWICE_AS_FINE = [
    "resnet18",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "convnext_tiny",
    "timm/test_resnet",
    "timm/test_convnext",
    "timm/hgnetv2_b0",
]
POOLED_TO_ONE_PLACE = {"alexnet": 256, "vgg11": 512}


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize(("name", "width"), [(name, width) for name, (_, width) in FAMILIES.items()])
def test_a_small_stem_takes_grey_images_and_its_first_convolution_learns(name, width):
    network, num_features = build_backbone(name, "small_image", num_channels=1, image_size=32)
    features = network(torch.rand(2, 1, 32, 32))
    assert features.shape == (2, num_features) == (2, POOLED_TO_ONE_PLACE.get(name, width))
    # Not the plain sum, which a layer norm at the end holds constant.
    (features * torch.rand_like(features)).sum().backward()
    assert input_convolution(network).weight.grad.abs().sum() > 0


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", TWICE_AS_FINE)
def test_a_small_stem_keeps_at_least_twice_the_resolution(name):
    before, after = (
        output_sizes(build_backbone(name, stem, image_size=64)[0], 64) for stem in ("imagenet", "small_image")
    )
    assert after[0] >= 2 * before[0] - 2
    # The last stage is at least twice as wide too, but for what rounding and unpadded borders take.
    assert after[-1] >= 2 * before[-1] - 1


@pytest.mark.parametrize(("stem", "size"), [("small_image", 16), ("imagenet", 4)])
def test_the_small_stem_of_a_residual_network_divides_by_one_instead_of_four(stem, size):
    network, _ = build_backbone("resnet18", stem)
    # The convolutions of the stem and of the first stage.
    assert output_sizes(network, 16)[1] == size


def test_the_small_stem_of_a_residual_network_is_the_convolution_of_the_paper_drawn_after_the_rest():
    torch.manual_seed(0)
    network, _ = build_backbone("resnet18", "small_image")
    torch.manual_seed(0)
    reference = torchvision.models.resnet18()
    reference.conv1 = nn.Conv2d(3, 64, 3, 1, padding=1, bias=False)
    reference.maxpool, reference.fc = nn.Identity(), nn.Identity()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(network.eval()(images), reference.eval()(images))


@pytest.mark.usefixtures("quick_start")
def test_patches_are_halved_and_their_resampled_kernel_answers_a_plain_image_alike(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(torchvision.models.convnext_tiny().state_dict(), path)
    large, small = (
        input_convolution(build_backbone("convnext_tiny", stem, weights=str(path))[0])
        for stem in ("imagenet", "small_image")
    )
    assert (small.kernel_size, small.stride, small.padding) == ((2, 2), (2, 2), (0, 0))
    blocks = large.weight.unflatten(2, (2, 2)).unflatten(4, (2, 2)).sum(dim=(3, 5))
    torch.testing.assert_close(small.weight, blocks)
