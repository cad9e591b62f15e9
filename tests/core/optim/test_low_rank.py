import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import build_skeleton
from supcon_pipeline.core.optim.averaging import MovingAverage
from supcon_pipeline.core.optim.blending import StartBlend
from supcon_pipeline.core.optim.depths import parameter_depths
from supcon_pipeline.core.optim.freezing import Freezing
from supcon_pipeline.core.optim.groups import groups_by_depth
from supcon_pipeline.core.optim.low_rank import (
    add_low_rank_updates,
    merged_state,
    require_linear_layers,
    trained_parameters,
)

LORA = {"rank": 2, "alpha": 6.0, "dropout": 0.0}
TINY_SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 2)}
# Of each way in which attention takes its weights, a small network for images of 32 pixels.
NETWORKS = {
    "called": lambda: timm.create_model("test_vit", img_size=32, num_classes=0),
    "called, in windows": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=0, **TINY_SWIN
    ),
    "read": lambda: timm.create_model("eva02_tiny_patch14_224", img_size=28, num_classes=0, depth=2),
    "read, in windows": lambda: SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=5),
    "attention of torch": lambda: VisionTransformer(32, 16, 2, 2, hidden_dim=24, mlp_dim=48),
}


def build(name):
    """A network with updates, the same without, and images for both."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # Scales of a branch that begin near zero would hide what is in the branch.
            parameter.add_(torch.rand_like(parameter) if parameter.ndim == 1 else 0)
    plain = copy.deepcopy(network)
    add_low_rank_updates(network, **LORA)
    size = 28 if name == "read" else 32
    return network, plain, torch.randn(2, 3, size, size)


def train_randomly(network):
    """Give every parameter that is trained another value."""
    with torch.no_grad():
        for parameter in trained_parameters(network):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


class Model(nn.Module):
    """A backbone where the models of the project have it, and a head."""

    def __init__(self, backbone):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.backbone = backbone
        self.head = nn.Linear(3, 2)


def small_model():
    network = NETWORKS["called"]()
    add_low_rank_updates(network, **LORA)
    return Model(network)


def test_the_weight_is_w_and_alpha_over_rank_times_b_a():
    layer = nn.Linear(2, 3)
    add_low_rank_updates(layer, rank=1, alpha=4.0, dropout=0.5)
    update = layer.parametrizations.weight[0]
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.arange(6.0).view(3, 2))
        update.lora_a_weight.copy_(torch.tensor([[1.0, 2.0]]))
        update.lora_b_weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
    expected = torch.tensor([[4.0, 9.0], [2.0, 3.0], [0.0, -3.0]])
    assert torch.equal(layer.eval().weight, expected)
    # In training, each input is left out of the update or counts twice.
    drawn = {tuple((layer.train().weight - torch.arange(6.0).view(3, 2))[0].tolist()) for _ in range(50)}
    assert drawn == {(first, second) for first in (0.0, 8.0) for second in (0.0, 16.0)}
    assert torch.equal(merged_state(layer)["weight"], expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_starts_as_the_plain_network_and_is_kept_as_one(name):
    network, plain, pixels = build(name)
    with torch.no_grad():
        assert torch.equal(network(pixels), plain(pixels))
    trained = train_randomly(network)(pixels).detach()
    assert not torch.allclose(trained, plain(pixels), atol=1e-2)
    state = merged_state(network)
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    plain.load_state_dict(state, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels), trained, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_update_is_trained_and_nothing_else_of_the_network(name):
    network, plain, pixels = build(name)
    train_randomly(network)(pixels).square().sum().backward()
    moved = {key for key, parameter in network.named_parameters() if parameter.grad is not None}
    assert moved == {key for key in network.state_dict() if key.endswith(("lora_a_weight", "lora_b_weight"))}
    linears = [layer for layer in plain.modules() if isinstance(layer, nn.Linear)]
    attentions = [layer for layer in plain.modules() if isinstance(layer, nn.MultiheadAttention)]
    assert len(moved) == 2 * (len(linears) + len(attentions))
    for key, parameter in network.named_parameters():
        assert key not in moved or parameter.grad.abs().max() > 0, key


def test_a_compiled_layer_is_trained_as_any_other():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    add_low_rank_updates(layer, **LORA)
    compiled, rows = copy.deepcopy(layer), torch.randn(4, 3)
    # The backend that compiles to machine code takes long.
    compiled.compile(backend="eager", fullgraph=True)
    for each in (layer, compiled):
        torch.manual_seed(1)
        train_randomly(each)
        each(rows).square().sum().backward()
    for found, expected in zip(compiled.parameters(), layer.parameters(), strict=True):
        assert torch.equal(found, expected)
        assert (found.grad is None) == (expected.grad is None)
        assert found.grad is None or torch.equal(found.grad, expected.grad)


def test_the_number_of_trained_parameters_is_rank_times_inputs_and_outputs():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)
    add_low_rank_updates(network, rank=4, alpha=8.0, dropout=0.0)
    # In each of 12 blocks: qkv, proj and the two layers of the MLP, of width 192.
    expected = 12 * 4 * ((192 + 3 * 192) + (192 + 192) + 2 * (192 + 4 * 192))
    assert sum(parameter.numel() for parameter in trained_parameters(network)) == expected
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected


@pytest.mark.parametrize("name", ["timm/test_vit", "swin_t", "vit_b_32", "maxvit_t"])
def test_an_update_has_the_depth_of_its_layer(name):
    plain = parameter_depths(build_skeleton(name))
    network = build_skeleton(name)
    add_low_rank_updates(network, rank=1, alpha=1.0, dropout=0.0)
    depths = parameter_depths(network)
    for key, depth in depths.items():
        layer, _, rest = key.partition(".parametrizations.")
        assert depth == plain[f"{layer}.{rest.partition('.')[0]}" if rest else key]
    assert len(set(depths.values())) > 3


def test_only_updates_and_heads_are_in_groups_and_the_log_names_them(caplog):
    model = small_model()
    with caplog.at_level("INFO"):
        groups = groups_by_depth(model, 0.1, lr=0.5, layer_decay=0.5, head_lr_factor=2.0)
    trained = [*trained_parameters(model.encoder.backbone), *model.head.parameters()]
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in trained}
    # Six blocks, of width 64 and with an MLP of 192; the layer before them has no linear layers.
    size = 2 * ((64 + 192) + (64 + 64) + 2 * (64 + 192))
    assert caplog.messages == [
        *(
            f"LoRA of layer {depth}: {size:,} parameters, learning rate {0.5 * 0.5 ** (6 - depth):.3g}"
            for depth in range(6, 0, -1)
        ),
        "heads: 8 parameters, learning rate 1",
    ]
    # Both factors decay, as weights do.
    assert all(not group["params"] for group in groups[1:-1:2])


def test_freezing_never_thaws_the_weights_of_the_network():
    model = small_model()
    updates = {id(p) for p in trained_parameters(model.encoder.backbone)}
    heads = {id(p) for p in model.head.parameters()}
    for epoch, expected in ((0, heads), (1, heads | updates)):
        Freezing(freeze_epochs=1, freeze_batch_norm=False).apply(model.train(), epoch)
        assert {id(p) for p in model.parameters() if p.requires_grad} == expected


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_blend_with_the_start_is_that_of_the_merged_weights(share):
    model = small_model()
    start = copy.deepcopy(merged_state(model))
    blend = StartBlend(model, share)
    train_randomly(model.encoder.backbone)
    end, blended = merged_state(model), merged_state(blend.of(model))
    for name, value in blended.items():
        torch.testing.assert_close(value, share * start[name] + (1 - share) * end[name])


def test_the_moving_average_follows_the_factors():
    model = small_model()
    average = MovingAverage(model, 0.5)
    average.update(model)
    before = copy.deepcopy(model.state_dict())
    train_randomly(model.encoder.backbone)
    average.update(model)
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, (before[name] + model.state_dict()[name]) / 2)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("resnet18", 0),
        ("vgg11", 0),
        ("timm/tf_efficientnet_lite0", 0),
        ("resnet_narrow", 0),
        ("regnet_y_400mf", 0),
    ],
)
def test_a_network_without_linear_layers_is_refused(name, share):
    message = rf"finetune\.lora must be null for {name}, got rank 8; {share}% of its weights .*lora=null$"
    with pytest.raises(InputError, match=message):
        require_linear_layers(build_skeleton(name), name, 8)


@pytest.mark.parametrize("name", ["timm/deit_tiny_patch16_224", "swin_t", "vit_b_16", "convnext_tiny"])
def test_a_network_of_linear_layers_is_taken(name):
    require_linear_layers(build_skeleton(name), name, 8)
