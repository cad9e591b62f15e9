import pytest
import torch
from tests.core.models.families import output_sizes
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.models.whitened_cnn import PatchWhitening, WhitenedCnn


def test_whitened_cnn_takes_colour_and_grey_and_one_image():
    for num_channels in (1, 3):
        network, num_features = build_backbone("whitened_cnn", num_channels=num_channels)
        assert network.eval()(torch.rand(1, num_channels, 16, 16)).shape == (1, num_features) == (1, 256)


def test_whitened_cnn_has_the_weights_of_its_source():
    # 24 maps of 2 x 2 patches, then kernels of 3 x 3 and two biases a block; without the last layer.
    kernels = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    network = WhitenedCnn((64, 256, 256))
    assert sum(p.numel() for p in network.parameters()) == kernels + 24 + 2 * (64 + 256 + 256)
    assert network.stem.weight.shape == (24, 3, 2, 2)
    assert "stem.weight" in network.state_dict()


@pytest.mark.parametrize(
    ("stem", "image_size", "sizes"), [("small_image", 33, [32, 16, 8, 4]), ("imagenet", 64, [16, 8, 4, 2])]
)
def test_whitened_cnn_halves_three_times_behind_its_patches(stem, image_size, sizes):
    network = build_backbone("whitened_cnn", stem, image_size=image_size)[0]
    assert list(dict.fromkeys(output_sizes(network, image_size, nn.Conv2d))) == sizes


def test_patches_answer_to_directions_and_their_opposites():
    layer = PatchWhitening(3, 2, 1)
    directions = torch.randn(12, 12)
    layer.set_directions(directions)
    with torch.no_grad():
        layer.bias.copy_(torch.arange(24.0))
    image = torch.rand(1, 3, 5, 5)
    found = layer(image)
    assert found.shape == (1, 24, 4, 4)
    patch = image[0, :, 1:3, 2:4].flatten()
    expected = torch.cat([directions @ patch, -directions @ patch]) + torch.arange(24.0)
    torch.testing.assert_close(found[0, :, 1, 2], expected)


def test_kernels_of_patches_are_no_parameters():
    network = WhitenedCnn((8, 16))
    assert [name for name, _ in network.stem.named_parameters()] == ["bias"]


def test_convolutions_pass_on_what_comes_in_at_first():
    maps = torch.rand(1, 24, 6, 6)
    first = WhitenedCnn((64,)).blocks[0][0](maps)
    torch.testing.assert_close(first[:, :24], maps)


def test_batch_norm_centres_and_shifts_without_a_gain():
    norm = WhitenedCnn((8,)).blocks[0][2]
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    maps = torch.randn(4, 8, 3, 3) * 5 + 2
    with torch.no_grad():
        norm.bias.fill_(0.5)
    expected = functional.batch_norm(maps, None, None, training=True) + 0.5
    torch.testing.assert_close(norm(maps), expected)


def test_whitened_cnn_refuses_images_that_it_would_shrink_to_nothing():
    with pytest.raises(InputError, match=r"data_prep.image_size must suit whitened_cnn"):
        build_backbone("whitened_cnn", image_size=8)
