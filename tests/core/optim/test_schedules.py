import math
from itertools import pairwise

import pytest
import torch
import yaml
from tests.conftest import ROOT
from tests.core.optim.regression import named, sgd, take_steps, through_a_file

from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.options import OPTIMIZERS, SCHEDULES
from supcon_pipeline.core.optim.schedules import Plateau, build_schedule, warmup_cosine_factor
from supcon_pipeline.core.parameters.optim import ScheduleParameters


def rates(name, num_epochs, warmup_epochs, steps_per_epoch=1, lr=1.0, **options):
    optimizer = sgd(lr)
    schedule = build_schedule(optimizer, steps_per_epoch, name, num_epochs, warmup_epochs, **options)
    found = []
    for _ in range(num_epochs * steps_per_epoch):
        found.append(schedule.lr)
        schedule.step()
    return found


def test_a_schedule_built_over_a_loaded_optimizer_has_the_same_peak(model, batch):
    optimizer = named(model, "sgd")
    schedule = build_schedule(optimizer, 1, "cosine", num_epochs=9, warmup_epochs=2)
    take_steps(model, optimizer, batch, 5, schedule)
    late = named(model, "sgd")
    late.load_state_dict(optimizer.state_dict())
    rebuilt = build_schedule(late, 1, "cosine", num_epochs=9, warmup_epochs=2)
    rebuilt.load_state_dict(schedule.state_dict())
    assert rebuilt.lr == schedule.lr == optimizer.param_groups[1]["lr"]


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


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_one_parameter_switches_the_schedule(stage, name):
    defaults = yaml.safe_load((ROOT / f"conf/base/parameters_{stage}.yml").read_text())[stage]["schedule"]
    params = ScheduleParameters.model_validate({**defaults, "name": name})
    build_schedule(sgd(), 7, **params.model_dump())
