import copy
import math

import pytest
import torch
import yaml
from tests.conftest import ROOT
from tests.core.optim.regression import named, take_steps, through_a_file
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.optim.groups import parameter_groups
from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.options import OPTIMIZERS
from supcon_pipeline.core.optim.schedules import build_schedule
from supcon_pipeline.core.parameters.optim import OptimizerParameters


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_without_gradient_shrinks_weights_at_most(model, name):
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = build_optimizer(model, name, lr=0.5, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]) == (value.ndim <= 1), key


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_apart_from_the_gradient_is_the_rate_times_the_decay(model, name):
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = build_optimizer(model, name, lr=0.5, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in model.named_parameters():
        factor = 1 - 0.5 * 0.1 if value.ndim > 1 else 1
        torch.testing.assert_close(value.detach(), before[key] * factor)


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_follow_the_formula_of_momentum(nesterov):
    model = nn.Linear(1, 1, bias=False)
    weight, velocity = model.weight.item(), 0.0
    optimizer = build_optimizer(model, "sgd", lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=nesterov)
    for gradient in (1.0, -0.5, 2.0):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        decayed = gradient + 0.01 * weight
        velocity = 0.9 * velocity + decayed
        weight -= 0.1 * (decayed + 0.9 * velocity if nesterov else velocity)
        assert model.weight.item() == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_of_a_regression(model, batch, name):
    before = functional.mse_loss(model(batch[0]), batch[1]).item()
    take_steps(model, named(model, name), batch, num_steps=60)
    assert functional.mse_loss(model(batch[0]), batch[1]).item() < before / 2


# Lookahead takes its slow step after every sixth: before the first, between two, and right after one.
@pytest.mark.parametrize("num_steps", [4, 9, 12])
@pytest.mark.parametrize("schedule_name", ["cosine", "onecycle", "plateau"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_from_a_state_as_if_it_had_not_stopped(model, batch, name, schedule_name, num_steps):
    def build(trained):
        optimizer = named(trained, name)
        return optimizer, build_schedule(optimizer, 5, schedule_name, num_epochs=5, warmup_epochs=1)

    resumed = copy.deepcopy(model)
    optimizer, schedule = build(model)
    take_steps(model, optimizer, batch, num_steps, schedule)
    parts = [through_a_file(part.state_dict()) for part in (model, optimizer, schedule)]
    take_steps(model, optimizer, batch, 10, schedule)

    others = build(resumed)
    for part, state in zip((resumed, *others), parts, strict=True):
        part.load_state_dict(state)
    take_steps(resumed, others[0], batch, 10, others[1])
    assert others[1].lr == schedule.lr
    for key, value in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_every_sixth_step_of_lookahead_goes_half_way_back_to_the_slow_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = build_optimizer(model, "lookahead", lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False)
    weights = []
    for _ in range(14):
        model.weight.grad = torch.full((1, 1), -1.0)
        optimizer.step()
        weights.append(model.weight.item())
    # Fast steps of 1; the slow weights begin at 6, and the twelfth step comes to (6 + 12) / 2.
    assert weights == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 9, 10, 11]


def test_ranger_is_lookahead_around_radam(model, batch):
    from timm.optim import Lookahead

    twin = copy.deepcopy(model)
    ranger = build_optimizer(model, "ranger", lr=0.01, weight_decay=0.01, sync_period=3, slow_step_size=0.2)
    reference = Lookahead(torch.optim.RAdam(parameter_groups(twin, 0.01), lr=0.01), k=3, alpha=0.2)
    take_steps(model, ranger, batch, 8)
    take_steps(twin, reference, batch, 8)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_takes_steps_of_a_share_of_the_weights_norm_and_leaves_biases_to_sgd(weight_decay):
    model = nn.Linear(3, 2)
    weight, bias = (parameter.detach().clone() for parameter in model.parameters())
    optimizer = build_optimizer(model, "lars", lr=2.0, weight_decay=weight_decay, momentum=0.0)
    model.weight.grad, model.bias.grad = torch.randn(2, 3), torch.randn(2)
    gradient, size = model.weight.grad.clone(), weight.norm()
    optimizer.step()
    # The local rate of You et al., Eq. 6, with a trust coefficient of 0.001.
    local_rate = 0.001 * size / (gradient.norm() + weight_decay * size)
    expected = weight - 2.0 * local_rate * (gradient + weight_decay * weight)
    torch.testing.assert_close(model.weight.detach(), expected)
    torch.testing.assert_close(model.bias.detach(), bias - 2.0 * model.bias.grad)


def test_muon_orthogonalises_matrices_and_kernels_and_nothing_else(model, batch):
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = build_optimizer(model, "muon", lr=1.0, weight_decay=0.0, nesterov=False)
    take_steps(model, optimizer, batch, 1)
    for key, value in model.named_parameters():
        update = before[key] - value.detach()
        if value.ndim > 1:
            update = update.flatten(1)
            # Liu et al., Eq. 4: all singular values are 0.2 times the root of the longer side; timm's five
            # steps in bfloat16 come within a quarter.
            singular = torch.linalg.svdvals(update) / (0.2 * math.sqrt(max(update.shape)))
            torch.testing.assert_close(singular, torch.ones_like(singular), atol=0.25, rtol=0)
        else:
            # The first step of AdamW is the rate times the gradient's sign, and there is none before a norm.
            expected = value.grad.sign() * (key != "0.bias")
            torch.testing.assert_close(update * (key != "0.bias"), expected, atol=0.01, rtol=0)


def test_muon_leaves_a_table_of_positions_to_adamw():
    model = nn.Linear(8, 8, bias=False)
    model.register_parameter("positions", nn.Parameter(torch.randn(6, 8)))
    optimizer = build_optimizer(model, "muon", lr=0.1, weight_decay=0.1, nesterov=False)
    before = model.positions.detach().clone()
    model.positions.grad, model.weight.grad = torch.randn(6, 8), torch.randn(8, 8)
    optimizer.step()
    torch.testing.assert_close(model.positions.detach(), before - 0.1 * model.positions.grad.sign())


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_muon_leaves_heads_to_adamw(layer_decay):
    model = nn.Module()
    model.encoder = nn.Module()
    model.encoder.backbone, model.classifier = nn.Linear(6, 4, bias=False), nn.Linear(4, 3)
    optimizer = build_optimizer(
        model, "muon", lr=0.1, weight_decay=0.2, nesterov=False, layer_decay=layer_decay
    )
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    head, bias = model.classifier.weight, model.classifier.bias
    expected = before["classifier.weight"] * (1 - 0.1 * 0.2) - 0.1 * head.grad.sign()
    torch.testing.assert_close(head.detach(), expected)
    torch.testing.assert_close(bias.detach(), before["classifier.bias"] - 0.1 * bias.grad.sign())
    update = before["encoder.backbone.weight"] * (1 - 0.1 * 0.2) - model.encoder.backbone.weight.detach()
    assert torch.linalg.svdvals(update).std() < 0.1 * torch.linalg.svdvals(update).mean()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_without_biases_can_be_optimized(name):
    model = nn.Linear(8, 8, bias=False)
    loss = take_steps(model, named(model, name), (torch.randn(4, 8), torch.randn(4, 8)), 3)
    assert math.isfinite(loss)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_parameter_switches_the_optimizer(model, stage, name):
    defaults = yaml.safe_load((ROOT / f"conf/base/parameters_{stage}.yml").read_text())[stage]["optimizer"]
    params = OptimizerParameters.model_validate({**defaults, "name": name})
    build_optimizer(model, **params.model_dump())


def test_the_default_optimizer_is_sgd_with_nesterov_momentum(model):
    defaults = yaml.safe_load((ROOT / "conf/base/parameters_stage1.yml").read_text())["stage1"]["optimizer"]
    optimizer = build_optimizer(model, **OptimizerParameters.model_validate(defaults).model_dump())
    assert isinstance(optimizer, torch.optim.SGD)
    decayed, others = optimizer.param_groups
    assert (decayed["lr"], decayed["momentum"], decayed["nesterov"]) == (0.1, 0.9, True)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.0005, 0.0)


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_nesterov_without_momentum_is_refused_where_it_is_only_usual_too(name):
    with pytest.raises(ValueError, match=r"momentum must be above 0 with nesterov, got 0\.0"):
        OptimizerParameters(name=name, lr=0.1, weight_decay=0.0, momentum=0.0)
    OptimizerParameters(name=name, lr=0.1, weight_decay=0.0, momentum=0.0, nesterov=False)
