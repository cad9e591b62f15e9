import copy
import io
import math
from itertools import pairwise

import pytest
import torch
import yaml
from tests.conftest import ROOT
from tests.core.training.trainings import read_parameters
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.optim.groups import parameter_groups
from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.options import OPTIMIZERS, SCHEDULES, complete_options
from supcon_pipeline.core.optim.schedules import Plateau, build_schedule, warmup_cosine_factor
from supcon_pipeline.core.parameters.optim import OptimizerParameters, ScheduleParameters

# With LARS's trust coefficient of 0.001, its rates are of another order.
RATES = {"sgd": 0.05, "lookahead": 0.05, "lars": 1.0}


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 9, 4))


@pytest.fixture
def batch():
    return torch.randn(16, 2, 5, 5), torch.randn(16, 4)


def sgd(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def named(model, name, **options):
    return build_optimizer(model, name, RATES.get(name, 0.01), weight_decay=0.01, **options)


def take_steps(model, optimizer, batch, num_steps, schedule=None):
    views, targets = batch
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = functional.mse_loss(model(views), targets)
        loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
    return loss.item()


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def rates(name, num_epochs, warmup_epochs, steps_per_epoch=1, lr=1.0, **options):
    optimizer = sgd(lr)
    schedule = build_schedule(optimizer, steps_per_epoch, name, num_epochs, warmup_epochs, **options)
    found = []
    for _ in range(num_epochs * steps_per_epoch):
        found.append(schedule.lr)
        schedule.step()
    return found


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


def test_a_schedule_built_over_a_loaded_optimizer_has_the_same_peak(model, batch):
    optimizer = named(model, "sgd")
    schedule = build_schedule(optimizer, 1, "cosine", num_epochs=9, warmup_epochs=2)
    take_steps(model, optimizer, batch, 5, schedule)
    late = named(model, "sgd")
    late.load_state_dict(optimizer.state_dict())
    rebuilt = build_schedule(late, 1, "cosine", num_epochs=9, warmup_epochs=2)
    rebuilt.load_state_dict(schedule.state_dict())
    assert rebuilt.lr == schedule.lr == optimizer.param_groups[1]["lr"]


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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_without_biases_can_be_optimized(name):
    model = nn.Linear(8, 8, bias=False)
    loss = take_steps(model, named(model, name), (torch.randn(4, 8), torch.randn(4, 8)), 3)
    assert math.isfinite(loss)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgdd", {}, "name must be a known one, got 'sgdd'; did you mean 'sgd'\\?"),
        (
            "adamw",
            {"momentum": 0.9},
            "momentum must be null with adamw, got 0.9; .* sgd, lookahead, lars, muon",
        ),
        ("adam", {"nesterov": False}, "nesterov must be null with adam, got False"),
        ("sgd", {"betas": (0.9, 0.99)}, "betas must be null with sgd"),
        ("radam", {"sync_period": 5}, "sync_period must be null with radam, got 5; .* lookahead, ranger$"),
    ],
)
def test_an_optimizer_that_does_not_use_an_option_refuses_it(model, name, options, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(model, name, lr=0.1, weight_decay=0.0, **options)


def test_the_factor_rises_in_equal_steps_and_falls_along_a_half_cosine():
    factors = [warmup_cosine_factor(step, num_steps=6, num_warmup_steps=2) for step in range(8)]
    half = math.sqrt(0.5)
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, (1 + half) / 2, 0.5, (1 - half) / 2, 0, 0])


def test_without_warm_up_the_rate_is_that_of_torchs_cosine():
    reference = sgd(lr=0.3)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=7)
    for rate in rates("cosine", num_epochs=7, warmup_epochs=0, lr=0.3):
        assert rate == pytest.approx(annealing.get_last_lr()[0], abs=1e-9)
        reference.step()
        annealing.step()


def test_the_rate_is_bit_for_bit_that_of_torchs_lambda_schedule():
    reference = sgd(lr=0.1)
    annealing = torch.optim.lr_scheduler.LambdaLR(reference, lambda step: warmup_cosine_factor(step, 60, 9))
    for rate in rates("cosine", num_epochs=20, warmup_epochs=3, steps_per_epoch=3, lr=0.1):
        assert rate == annealing.get_last_lr()[0]
        reference.step()
        annealing.step()


def test_one_cycle_is_torchs_with_straight_lines():
    reference = sgd()
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        reference,
        max_lr=0.4,
        total_steps=20,
        pct_start=(6 + 1) / 20,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    found = rates("onecycle", num_epochs=10, warmup_epochs=3, steps_per_epoch=2, lr=0.4)
    for rate in found:
        assert rate == pytest.approx(cycle.get_last_lr()[0], rel=1e-6)
        reference.step()
        cycle.step()
    assert found[0] == 0.4 / 25
    assert found[6] == 0.4


def test_one_cycle_with_its_peak_at_the_last_step_ends_there():
    assert rates("onecycle", num_epochs=2, warmup_epochs=1) == pytest.approx([1 / 25, 1])


def test_the_rate_falls_by_steps_at_shares_of_the_training():
    found = rates("step", 10, 2, lr=2.0, milestones=[0.5, 0.7], decay_factor=0.1)
    assert found == pytest.approx([2 / 3, 4 / 3, 2, 2, 2, 0.2, 0.2, 0.02, 0.02, 0.02])


def test_a_constant_rate_rises_and_stays():
    assert rates("constant", 6, 3) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_a_plateau_reduces_the_rate_after_patience_epochs_without_improvement():
    optimizer = sgd()
    schedule = build_schedule(
        optimizer,
        steps_per_epoch=2,
        name="plateau",
        num_epochs=10,
        warmup_epochs=1,
        decay_factor=0.5,
        patience=1,
    )
    found = []
    for score in [0.9, 0.5, 0.5, 0.6, 0.6, 0.6, 0.7, 0.1, math.nan, 0.1]:
        for _ in range(2):
            found.append(schedule.lr)
            schedule.step()
        schedule.observe(score)
    # The first metric is that of the last step of the warm-up: 0.9 is never reached again, and every second
    # epoch after it reduces.
    halves = [1 / 3, 2 / 3, *[1] * 4, *[1 / 2] * 4, *[1 / 4] * 4, *[1 / 8] * 4, *[1 / 16] * 2]
    assert found == pytest.approx(halves)


def test_metrics_of_an_unfinished_warm_up_do_not_count():
    schedule = build_schedule(sgd(), 1, "plateau", num_epochs=9, warmup_epochs=3, patience=0)
    for metric in (3.0, 2.0):
        schedule.step()
        schedule.observe(metric)
    schedule.step()
    for metric in (1.0, 1.1):
        schedule.observe(metric)
    assert schedule.lr == 1


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_a_plateau_reduces_when_torchs_does(patience):
    reference = sgd()
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, "max", 0.5, patience, threshold=0, eps=0)
    plateau = Plateau(0.5, patience)
    for metric in torch.randn(60).round(decimals=1).tolist():
        torchs.step(metric)
        plateau.observe(metric)
        assert plateau.factor == reference.param_groups[0]["lr"]
    assert plateau.factor < 1


@pytest.mark.parametrize("num_steps", range(1, 8))
def test_a_plateau_goes_on_from_a_state_as_if_it_had_not_stopped(num_steps):
    def run(schedule, metrics):
        found = []
        for metric in metrics:
            schedule.step()
            schedule.observe(metric)
            found.append(schedule.lr)
        return found

    metrics = [0.4, 0.5, 0.5, 0.4, 0.6, 0.6, 0.6, 0.5, 0.5]
    build = {"name": "plateau", "num_epochs": 9, "warmup_epochs": 1, "patience": 1, "decay_factor": 0.3}
    first, second = (build_schedule(sgd(0.1), 1, **build) for _ in range(2))
    run(first, metrics[:num_steps])
    second.load_state_dict(through_a_file(first.state_dict()))
    assert second.lr == first.lr
    assert run(second, metrics[num_steps:]) == run(first, metrics[num_steps:])


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "plateau"])
def test_only_a_plateau_heeds_metrics(name):
    schedule = build_schedule(sgd(), 1, name, num_epochs=9, warmup_epochs=1)
    schedule.step()
    before = schedule.lr
    for _ in range(20):
        schedule.observe(0.0)
    assert schedule.lr == before == 1


@pytest.mark.parametrize("warmup_epochs", [1, 2, 5, 9])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_rises_in_equal_steps_to_its_one_peak_and_never_after(name, warmup_epochs):
    options = {"milestones": [0.95]} if name == "step" else {}
    found = rates(name, num_epochs=10, warmup_epochs=warmup_epochs, steps_per_epoch=3, **options)
    rise, rest = found[: 3 * warmup_epochs + 1], found[3 * warmup_epochs :]
    gains = [after - before for before, after in pairwise(rise)]
    assert gains == pytest.approx([gains[0]] * len(gains))
    assert gains[0] > 0
    assert rest == sorted(rest, reverse=True)
    assert max(found) == rise[-1] == 1
    assert min(found) > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_schedule_sets_the_rate_of_every_group_of_every_optimizer(model, name):
    optimizer = build_optimizer(model, name, lr=0.4, weight_decay=0.1)
    schedule = build_schedule(optimizer, 1, "cosine", num_epochs=4, warmup_epochs=1)
    found = []
    for _ in range(4):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = [0.2, 0.4, 0.3, 0.1]  # 0.4 times 1/2, 1, (1 + cos 60°) / 2, (1 + cos 120°) / 2
    assert found == [pytest.approx([rate, rate]) for rate in expected]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "name must be a known one, got 'cosin'; did you mean 'cosine'\\?"),
        ("cosine", {"warmup_epochs": 4}, r"warmup_epochs must be fewer than num_epochs \(4\), got 4"),
        ("constant", {"warmup_epochs": 5}, r"warmup_epochs must be fewer than num_epochs \(4\), got 5"),
        ("onecycle", {"warmup_epochs": 0}, "warmup_epochs must be at least 1 with onecycle, got 0"),
        ("cosine", {"patience": 3}, "patience must be null with cosine, got 3; it is used by plateau"),
        ("plateau", {"milestones": [0.5]}, "milestones must be null with plateau"),
        ("step", {"milestones": [0.25]}, r"above that of the warm-up \(0.25\) and below 1, got \[0.25\]"),
        ("step", {"milestones": [0.7, 0.5]}, "milestones must be ascending shares"),
        ("step", {"milestones": [5]}, "milestones must be ascending shares"),
        ("step", {"milestones": []}, "milestones must be ascending shares"),
    ],
)
def test_a_schedule_without_its_peak_or_with_an_option_of_no_use_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(sgd(), 1, name, **{"num_epochs": 4, "warmup_epochs": 1, **options})


def test_a_given_option_goes_before_the_usual_one():
    table = {"a": {"x": 1, "y": 2}, "b": {"z": 3}}
    assert complete_options(table, "a", {"x": 0, "y": None, "z": None}) == {"x": 0, "y": 2}


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_parameter_switches_the_optimizer(model, stage, name):
    defaults = yaml.safe_load((ROOT / f"conf/base/parameters_{stage}.yml").read_text())[stage]["optimizer"]
    params = OptimizerParameters.model_validate({**defaults, "name": name})
    build_optimizer(model, **params.model_dump())


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_one_parameter_switches_the_schedule(stage, name):
    defaults = yaml.safe_load((ROOT / f"conf/base/parameters_{stage}.yml").read_text())[stage]["schedule"]
    params = ScheduleParameters.model_validate({**defaults, "name": name})
    build_schedule(sgd(), 7, **params.model_dump())


def test_the_names_of_the_parameters_are_those_of_the_library():
    for model, table in ((OptimizerParameters, OPTIMIZERS), (ScheduleParameters, SCHEDULES)):
        assert model.model_fields["name"].annotation.__args__ == tuple(table)
        optional = {name for name, field in model.model_fields.items() if not field.is_required()}
        assert {option for options in table.values() for option in options} == optional


def test_the_file_of_stage1_lists_every_option_and_those_of_the_others_only_what_they_set():
    for name, model in (("optimizer", OptimizerParameters), ("schedule", ScheduleParameters)):
        fields = model.model_fields
        required = {field for field in fields if fields[field].is_required()}
        assert read_parameters("stage1")[name].keys() == fields.keys()
        assert read_parameters("stage2")[name].keys() == required
    assert read_parameters("baseline")["optimizer"].keys() == {"name", "lr", "weight_decay"}


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
