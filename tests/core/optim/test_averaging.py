import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import StochasticDepth

from supcon_pipeline.core.optim.averaging import (
    average_states,
    batch_norms,
    build_ema,
    cumulative_batch_norm,
    reestimate_batch_norm,
)


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    )


def test_the_moving_average_is_that_of_a_slow_loop_over_parameters_and_buffers(model):
    ema = build_ema(model, decay_per_epoch=0.25, steps_per_epoch=2)
    expected = {}
    for step in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.rand(3, 1, 5, 5))
        ema.update(model)
        for name, value in model.state_dict().items():
            # The square root of 0.25 per step; the first update takes the model as it is.
            is_copied = step == 0 or not value.is_floating_point()
            expected[name] = value.clone() if is_copied else 0.5 * expected[name] + 0.5 * value
    torch.testing.assert_close(dict(ema.module.state_dict()), expected)
    assert ema.module[1].num_batches_tracked == 5


class ManyTypes(nn.Module):
    """Parameters and buffers of every kind that a network may have."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.narrow = nn.Parameter(torch.randn(7).half())
        self.frozen = nn.Parameter(torch.randn(2), requires_grad=False)
        self.register_buffer("wide", torch.randn(4, dtype=torch.float64))
        self.register_buffer("mask", torch.rand(3) > 0.5)
        self.register_buffer("unsaved", torch.randn(3), persistent=False)

    def change(self):
        self.norm(torch.randn(6, 5) * 3)
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                tensor.data.add_(torch.randn_like(tensor) * 1e-3)
        self.mask.logical_not_()


def test_the_moving_average_is_torchs_own_bit_for_bit():
    model, decay = ManyTypes(), 0.3 ** (1 / 7)

    def lerp_or_copy(averages, values, _):
        is_averaged = averages[0].is_floating_point()
        args = (averages, values, 1 - decay) if is_averaged else (averages, values)
        (torch._foreach_lerp_ if is_averaged else torch._foreach_copy_)(*args)

    theirs = AveragedModel(model, multi_avg_fn=lerp_or_copy, use_buffers=True)
    ours = build_ema(model, 0.3, steps_per_epoch=7)
    for _ in range(20):
        model.change()
        theirs.update_parameters(model)
        ours.update(model)
        for kind in ("named_parameters", "named_buffers"):
            expected, found = (dict(getattr(average.module, kind)()) for average in (theirs, ours))
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert ours.num_updates == theirs.n_averaged == 20


class Operations(TorchDispatchMode):
    """Notes the names of the operations that reach a device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


def test_an_update_reads_no_number_and_copies_nothing_to_the_device():
    model = ManyTypes()
    ema = build_ema(model, 0.5, 1)
    with Operations() as first:
        ema.update(model)
    with Operations() as second:
        ema.update(model)
    assert first.names == ["_foreach_copy_"]
    assert second.names == ["_foreach_lerp_", "_foreach_copy_"]


def test_a_moving_average_goes_on_from_its_state(model):
    whole = build_ema(model, 0.5, 1)
    whole.update(model)
    nn.init.ones_(model[0].weight)
    resumed = build_ema(model, 0.5, 1)
    resumed.load_state_dict(whole.state_dict())
    for ema in (whole, resumed):
        ema.update(model)
    states = [dict(ema.module.state_dict()) for ema in (whole, resumed)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert not torch.equal(states[0]["0.weight"], model[0].weight)


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_after_an_epoch_the_decay_is_left_of_what_was_there(steps_per_epoch):
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    ema = build_ema(model, 0.3, steps_per_epoch)
    ema.update(model)
    nn.init.zeros_(model.weight)
    for _ in range(steps_per_epoch):
        ema.update(model)
    assert ema.module.weight.item() == pytest.approx(0.3)


def test_the_moving_average_leaves_the_model_alone(model):
    before = copy.deepcopy(model.state_dict())
    ema = build_ema(model, 0.5, 1)
    for _ in range(2):
        ema.update(model)
    nn.init.zeros_(ema.module[0].weight)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_decay_outside_zero_to_one_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay_per_epoch must be between 0 and 1, got"):
        build_ema(nn.Linear(1, 1), decay, 1)


def test_states_are_averaged_entry_by_entry_and_counters_taken_from_the_first():
    states = [
        {"weight": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)},
        {"weight": torch.tensor([2.0, 6.0]), "count": torch.tensor(9)},
        {"weight": torch.tensor([6.0, 1.0]), "count": torch.tensor(5)},
    ]
    average = average_states(states)
    assert average["weight"].tolist() == [3.0, 3.0]
    assert average["count"].item() == 3
    assert states[0]["weight"].tolist() == [1.0, 2.0]


def test_the_average_does_not_depend_on_the_order_and_keeps_the_type():
    states = [{"weight": torch.randn(50).half()} for _ in range(5)]
    average = average_states(states)["weight"]
    assert average.dtype == torch.float16
    assert torch.equal(average, average_states(states[::-1])["weight"])


def test_the_average_of_one_state_is_a_copy_of_it(model):
    state = model.state_dict()
    average = average_states([state])
    torch.testing.assert_close(average, dict(state), rtol=0, atol=0)
    assert all(average[name].data_ptr() != state[name].data_ptr() for name in state)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "states must hold at least one model state, got none"),
        ([{"a": torch.ones(1)}, {"b": torch.ones(1)}], "states must have the same entries"),
        (
            [{"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)}],
            "states must have the same entries",
        ),
    ],
)
def test_states_that_cannot_be_averaged_are_refused(states, message):
    with pytest.raises(ValueError, match=message):
        average_states(states)


def test_the_batch_norms_of_a_model_are_those_with_running_statistics(model):
    assert batch_norms(model) == [model[1], model[4]]
    assert len(batch_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))) == 1
    assert not batch_norms(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    assert not batch_norms(nn.BatchNorm1d(2, track_running_stats=False))


def test_the_momentum_comes_back_even_where_a_batch_fails(model):
    model[4].momentum = None
    with pytest.raises(RuntimeError), cumulative_batch_norm(model):
        model(torch.rand(3, 2, 5, 5))
    assert (model[1].momentum, model[4].momentum) == (0.1, None)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_every_image_weighs_the_same_in_the_batch_norm_statistics():
    norm = nn.BatchNorm1d(3)
    images = torch.randn(11, 3) * 2 + 5
    batches = images.split([2, 6, 3])
    reestimate_batch_norm(norm, batches)
    variance = sum(len(batch) * batch.var(dim=0) for batch in batches) / len(images)
    torch.testing.assert_close(norm.running_mean, images.mean(dim=0))
    torch.testing.assert_close(norm.running_var, variance)


def test_every_image_weighs_the_same_where_a_model_sees_each_batch_twice():
    """As with `mirror_average`, by which an encoder embeds the mirror images, too."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, rows):
            return self.norm(rows) + self.norm(-2 * rows)

    model, images = Twice(), torch.randn(12, 3) + 5
    batches = images.sort(dim=0)[0].split([4, 2, 6])
    reestimate_batch_norm(model, batches)
    torch.testing.assert_close(model.norm.running_mean, torch.cat([images, -2 * images]).mean(dim=0))


def test_batches_of_equal_size_give_the_statistics_of_torchs_own(model):
    reference = copy.deepcopy(model)
    batches = torch.rand(4, 3, 1, 5, 5)
    reestimate_batch_norm(model, batches)
    update_bn(batches, reference)
    torch.testing.assert_close(dict(model.state_dict()), dict(reference.state_dict()))


def test_what_a_model_drops_at_random_is_in_no_statistics():
    images, statistics = torch.randn(12, 3) * 2 + 5, []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Dropout(0.5), StochasticDepth(0.5, "row"), nn.BatchNorm1d(3))
        reestimate_batch_norm(model, [images])
        statistics.append(torch.stack([model[2].running_mean, model[2].running_var]))
        assert all(module.training for module in model.modules())
    assert torch.equal(*statistics)
    torch.testing.assert_close(statistics[0], torch.stack([images.mean(dim=0), images.var(dim=0)]))


def test_earlier_statistics_are_forgotten_and_everything_else_is_kept(model):
    model[4].momentum = 0.3
    batches = [torch.rand(3, 1, 5, 5), torch.rand(1, 1, 5, 5)]
    fresh = copy.deepcopy(model)
    model(torch.rand(3, 1, 5, 5) * 100)
    weights = copy.deepcopy(list(model.parameters()))
    model.eval()
    for either in (fresh, model):
        reestimate_batch_norm(either, batches)
    torch.testing.assert_close(dict(model.state_dict()), dict(fresh.state_dict()))
    assert all(torch.equal(one, other) for one, other in zip(weights, model.parameters(), strict=True))
    assert (model[1].momentum, model[4].momentum) == (0.1, 0.3)
    assert fresh.training
    assert not any(module.training for module in model.modules())


def test_statistics_of_nothing_are_refused(model):
    with pytest.raises(ValueError, match="batches must hold at least one image, got none"):
        reestimate_batch_norm(model, [])
