import pytest
import timm
import torch
import torchvision
from timm.optim import param_groups_weight_decay
from torch import nn

from supcon_pipeline.core.models.encoder import ContrastiveModel, Encoder
from supcon_pipeline.core.optim.groups import parameter_groups


def decaying(model, groups):
    """The names of the parameters whose group decays."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}


def contrastive(backbone):
    """A network where trainings have it: inside an encoder, beside a head."""
    return ContrastiveModel(Encoder(backbone, [0.5] * 3, [0.2] * 3), 8, hidden_dim=4, dim=3)


HEAD = {"projection_head.0.weight", "projection_head.2.weight"}


def test_weights_decay_and_biases_and_norms_do_not():
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 9, 4))
    decayed, others = parameter_groups(model, weight_decay=0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert decaying(model, [decayed, others]) == {"0.weight", "3.weight"}
    assert [id(p) for p in others["params"]] == [
        id(p) for p in (model[0].bias, *model[1].parameters(), model[3].bias)
    ]


def test_frozen_parameters_are_in_no_group():
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Linear(8, 4))
    model[0].requires_grad_(False)
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model[1].parameters())


@pytest.mark.parametrize(
    ("name", "undecayed"),
    [
        ("swin_t", {"relative_position_bias_table"}),
        ("swin_v2_t", {"logit_scale"}),
        ("vit_b_32", {"class_token", "pos_embedding"}),
        ("convnext_tiny", {"layer_scale"}),
    ],
)
def test_tables_tokens_and_scales_of_torchvision_do_not_decay(name, undecayed):
    with torch.device("meta"):
        model = contrastive(torchvision.models.get_model(name))
    names = decaying(model, parameter_groups(model, 0.1))
    kept = {key for key, parameter in model.named_parameters() if parameter.ndim > 1} - names
    assert {key.rpartition(".")[2] for key in kept} == undecayed


# One whose names are patterns, and one that names weights of a small network inside it.
@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        "gemma4_vit_167m",
        "resnet18",
    ],
)
def test_the_networks_of_timm_decay_where_timm_lets_them(name):
    with torch.device("meta"):
        backbone = timm.create_model(name, num_classes=0)
        model = contrastive(backbone)
    named = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    expected = decaying(backbone, param_groups_weight_decay(backbone, 0.1, no_weight_decay_list=named))
    names = decaying(model, parameter_groups(model, 0.1))
    assert names == {f"encoder.backbone.{key}" for key in expected} | HEAD


def test_what_a_part_of_a_model_names_does_not_decay():
    class Part(nn.Linear):
        def no_weight_decay(self):
            return {"weight", "absent"}

    model = nn.Sequential(Part(2, 2), nn.Linear(2, 2))
    assert decaying(model, parameter_groups(model, 0.1)) == {"1.weight"}
    assert decaying(model[0], parameter_groups(model[0], 0.1)) == set()
