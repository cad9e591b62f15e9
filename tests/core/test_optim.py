import math

import pytest
import torch
from torch import nn

from supcon_pipeline.core.optim import build_optimizer, build_schedule, parameter_groups, warmup_cosine_factor


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))


def sgd(parameters=(), lr=1.0):
    return torch.optim.SGD(parameters or [nn.Parameter(torch.zeros(1))], lr=lr)


def test_weights_decay_and_biases_and_norms_do_not(model):
    conv, norm, _, linear = model
    decayed, others = parameter_groups(model, weight_decay=0.1)
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(conv.weight), id(linear.weight)}
    assert {id(p) for p in others["params"]} == {id(p) for p in (conv.bias, *norm.parameters(), linear.bias)}


def test_frozen_parameters_are_in_no_group(model):
    model[0].requires_grad_(False)
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_a_step_without_gradient_shrinks_the_weights_alone(model):
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = build_optimizer(model, lr=0.5, momentum=0.0, weight_decay=0.1, nesterov=False)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        factor = 1 - 0.5 * 0.1 if value.ndim > 1 else 1
        torch.testing.assert_close(value.detach(), before[name] * factor)


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_follow_the_formula_of_momentum(nesterov):
    model = nn.Linear(1, 1, bias=False)
    weight, velocity = model.weight.item(), 0.0
    optimizer = build_optimizer(model, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    for gradient in (1.0, -0.5, 2.0):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        decayed = gradient + 0.01 * weight
        velocity = 0.9 * velocity + decayed
        weight -= 0.1 * (decayed + 0.9 * velocity if nesterov else velocity)
        assert model.weight.item() == pytest.approx(weight, rel=1e-5)


def test_the_factor_rises_in_equal_steps_and_falls_along_a_half_cosine():
    factors = [warmup_cosine_factor(step, num_steps=6, num_warmup_steps=2) for step in range(8)]
    half = math.sqrt(0.5)
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, (1 + half) / 2, 0.5, (1 - half) / 2, 0, 0])


def test_without_warm_up_the_rate_is_that_of_torchs_cosine():
    ours, reference = sgd(lr=0.3), sgd(lr=0.3)
    schedule = build_schedule(ours, num_steps=7, num_warmup_steps=0)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=7)
    for _ in range(7):
        assert schedule.get_last_lr() == pytest.approx(annealing.get_last_lr(), abs=1e-9)
        for stepped in (ours, schedule, reference, annealing):
            stepped.step()


@pytest.mark.parametrize("num_warmup_steps", [0, 1, 5, 9])
def test_every_step_of_the_training_has_a_rate_above_zero_and_one_has_the_peak(num_warmup_steps):
    factors = [warmup_cosine_factor(step, 10, num_warmup_steps) for step in range(10)]
    assert min(factors) > 0
    assert max(factors) == factors[num_warmup_steps] == 1


def test_the_schedule_sets_the_rate_of_every_group(model):
    optimizer = build_optimizer(model, lr=0.4, momentum=0.9, weight_decay=0.1, nesterov=True)
    schedule = build_schedule(optimizer, num_steps=4, num_warmup_steps=1)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = [0.2, 0.4, 0.3, 0.1]  # 0.4 times 1/2, 1, (1 + cos 60°) / 2, (1 + cos 120°) / 2
    assert rates == [pytest.approx([rate, rate]) for rate in expected]


@pytest.mark.parametrize("num_warmup_steps", [4, 5])
def test_a_warm_up_that_never_ends_is_refused(num_warmup_steps):
    with pytest.raises(ValueError, match=f"fewer than num_epochs, got {num_warmup_steps} of 4 steps"):
        build_schedule(sgd(), num_steps=4, num_warmup_steps=num_warmup_steps)
