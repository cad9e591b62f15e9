import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.core.training.trainings import CARD, make_data, stage1_parameters
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.training.lr_range import lr_curve, suggest_lr
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.stage import Stage, build_training

pytestmark = pytest.mark.usefixtures("no_gpu")


class LinearClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16 * 16, 3)

    def forward(self, images):
        return {"logits": self.linear(images.flatten(1) / 255 - 0.5)}


def cross_entropy(outputs, batch):
    return functional.cross_entropy(outputs["logits"], batch.labels)


def make_stage(model, criterion=cross_entropy, **changes):
    optimizer = {"name": "sgd", "lr": 7.0, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    params = stage1_parameters(transforms=[], ema=None, **{"optimizer": optimizer, **changes})
    return Stage("a stage", model, criterion, 1, lambda _: {}, params, {}, {})


def test_the_curve_is_that_of_a_plain_loop_at_geometric_rates():
    data, model = make_data(), LinearClassifier()
    plain = copy.deepcopy(model)
    # 36 training images in batches of 12: the fourth step begins a second epoch.
    curve = lr_curve(make_stage(model), data, 1e-4, 1e-1, num_steps=7, smoothing=0.5)
    assert [row["lr"] for row in curve] == pytest.approx(np.geomspace(1e-4, 1e-1, 7))

    loader = build_training(make_stage(LinearClassifier()), data).loader
    batches = [*loader.epoch(0), *loader.epoch(1), *loader.epoch(2)]
    losses = []
    for row, batch in zip(curve, batches, strict=False):
        plain.zero_grad()
        loss = cross_entropy(plain(batch.views[:, 0]), batch)
        loss.backward()
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter -= row["lr"] * parameter.grad
        losses.append(loss.item())
    assert [row["loss"] for row in curve] == pytest.approx(losses, rel=1e-4)
    for count in range(1, 8):
        weights = 0.5 ** np.arange(count)[::-1]
        smoothed = np.average(losses[:count], weights=weights)
        assert curve[count - 1]["smoothed_loss"] == pytest.approx(smoothed, rel=1e-4)


def falling_then(*losses):
    """A stage whose losses are these, whatever the weights."""
    rest = iter(losses)
    return lambda outputs, _: outputs["logits"].sum() * 0 + next(rest)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 4.01])
def test_it_stops_before_the_first_loss_that_is_not_finite_or_four_times_the_lowest(bad):
    criterion = falling_then(2.0, 1.0, 3.9, 3.0, bad, 1.0, 1.0, 1.0, 1.0, 1.0)
    curve = lr_curve(make_stage(LinearClassifier(), criterion), make_data(), 1e-4, 1e-1, 10, smoothing=0.0)
    assert [row["loss"] for row in curve] == pytest.approx([2.0, 1.0, 3.9, 3.0])


def test_a_loss_that_explodes_ends_the_curve_of_a_real_training():
    data = make_data()
    # Labels that have nothing to do with the images, so that no large step is a lucky one.
    data = replace(data, labels=np.random.default_rng(0).permutation(data.labels))
    curve = lr_curve(make_stage(LinearClassifier()), data, 1e-3, 1e6, num_steps=40, smoothing=0.5)
    smoothed = [row["smoothed_loss"] for row in curve]
    assert 5 < len(curve) < 40
    assert smoothed[-1] <= 4 * min(smoothed)


@pytest.mark.parametrize("optimizer", ["sgd", "ranger"])
def test_the_curve_is_of_the_real_model_loss_and_optimizer(optimizer):
    data = make_data()
    params = stage1_parameters(
        optimizer={"name": optimizer, "lr": 0.1, "weight_decay": 0.0}, micro_batch_size=5, max_grad_norm=1.0
    )
    curves = []
    for _ in range(2):
        stage = contrastive_stage(data, CARD, params)
        curves.append(lr_curve(stage, data, 1e-5, 1e-2, num_steps=10, smoothing=0.9))
    assert curves[0] == curves[1]
    assert len(curves[0]) == 10
    assert all(math.isfinite(value) for row in curves[0] for value in row.values())


def curve_of(*smoothed):
    return [
        {"lr": 10.0 ** (index - 5), "loss": 0.0, "smoothed_loss": value}
        for index, value in enumerate(smoothed)
    ]


def test_the_suggestions_for_a_curve_made_by_hand():
    # Slopes over two steps: -0.1, -0.6, -1.4, -1.1, 0.3; the steepest is around the fourth point.
    suggestion = suggest_lr(curve_of(3.0, 3.0, 2.9, 2.4, 1.5, 1.3, 1.8))
    assert suggestion == {
        "steepest_lr": pytest.approx(1e-2),
        "lowest_lr": pytest.approx(1.0),
        "suggested_lr": pytest.approx(10**-1.5),
        "num_points": 7,
    }


def test_what_falls_by_chance_in_the_first_steps_is_not_the_steepest():
    falling = [9.0, 4.0, *[3.0] * 9, 2.0, *[1.0] * 8]
    curve = curve_of(*falling)
    assert suggest_lr(curve)["steepest_lr"] == pytest.approx(curve[11]["lr"])


def test_slopes_are_against_the_logarithm_of_the_learning_rate():
    rows = [
        {"lr": lr, "loss": 0.0, "smoothed_loss": loss} for lr, loss in [(1, 9), (10, 8), (1000, 6), (2000, 5)]
    ]
    # -3 over three powers of ten, then -3 over 2.3 of them.
    assert suggest_lr(rows)["steepest_lr"] == 1000


@pytest.mark.parametrize("num_points", [0, 1, 2])
def test_a_curve_of_less_than_three_points_is_refused(num_points):
    curve = curve_of(*[1.0] * num_points)
    lower = rf"; add --params lr_finder\.min_lr={curve[0]['lr'] / 100:.2g}" if curve else ""
    with pytest.raises(InputError, match=rf"curve must have at least 3 points, got {num_points}{lower}$"):
        suggest_lr(curve)
