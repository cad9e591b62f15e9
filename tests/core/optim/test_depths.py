import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.optim.depths import parameter_depths
from supcon_pipeline.core.optim.groups import groups_by_depth

FAMILIES = {
    # Stem, eight residual blocks.
    "resnet18": 9,
    # Patches, twelve blocks; the last norm belongs to the last block.
    "vit_b_32": 13,
    "vgg11": 8,
    # Stem, sixteen blocks, last convolution.
    "efficientnet_b0": 18,
    # Stem, eighteen blocks, three reductions.
    "convnext_tiny": 22,
    # Stem, nine inception blocks, two more convolutions.
    "googlenet": 12,
    "resnet_narrow": 5,
}


def depths_of(name):
    network, _ = build_backbone(name, "imagenet", image_size=224)
    return parameter_depths(network)


@pytest.mark.parametrize(("name", "num_layers"), FAMILIES.items())
def test_a_network_has_the_layers_of_its_paper_and_depth_rises_from_the_input(name, num_layers):
    depths = depths_of(name)
    assert sorted(set(depths.values())) == list(range(num_layers))
    assert list(depths.values()) == sorted(depths.values())


def test_a_block_is_one_layer_and_a_norm_belongs_to_what_is_before_it():
    depths = depths_of("resnet18")
    assert {depths[name] for name in depths if name.startswith(("conv1", "bn1"))} == {0}
    assert {depths[name] for name in depths if name.startswith("layer4.1.")} == {8}


class Model(nn.Module):
    """A backbone where the models of the project have it, and a head."""

    def __init__(self, backbone):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.backbone = backbone
        self.head = nn.Linear(3, 2)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_rates_are_those_of_timm_and_heads_have_their_own(name):
    network = timm.create_model(name, num_classes=0)
    model = Model(network)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {
        names[id(p)]: group["lr"]
        for group in groups_by_depth(model, 0.1, lr=0.5, layer_decay=0.7, head_lr_factor=4.0)
        for p in group["params"]
    }
    expected = {
        names[id(p)]: 0.5 * group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.7)
        for p in group["params"]
    }
    assert {"head.weight": rates.pop("head.weight"), "head.bias": rates.pop("head.bias")} == {
        "head.weight": 2.0,
        "head.bias": 2.0,
    }
    assert rates == pytest.approx(expected)


def test_the_first_group_has_the_rate_itself_and_only_weights_decay(caplog):
    model = Model(build_backbone("resnet_narrow")[0])
    with caplog.at_level("INFO"):
        groups = groups_by_depth(model, 0.1, lr=0.5, layer_decay=0.5, head_lr_factor=1.0)
    assert groups[0]["lr"] == 0.5
    assert [group["lr"] for group in groups[::2]] == [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.5]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0] * 6
    # In the order of the groups: what each of them is.
    assert "layer 4: " in caplog.messages[0]
    assert caplog.messages[-1] == "heads: 8 parameters, learning rate 0.5"
    shown = sum(int(line.split()[-5].replace(",", "")) for line in caplog.messages)
    assert shown == sum(p.numel() for p in model.parameters())
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters()}


def test_one_rate_for_all_is_a_decay_of_one():
    model = Model(build_backbone("resnet_narrow")[0])
    groups = groups_by_depth(model, 0.1, lr=0.5, layer_decay=1.0, head_lr_factor=1.0)
    assert {group["lr"] for group in groups} == {0.5}
    optimizer = torch.optim.SGD(groups, lr=9.0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
