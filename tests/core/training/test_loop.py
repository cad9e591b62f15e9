import copy
import random
from dataclasses import replace
from io import BytesIO
from itertools import chain, repeat

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.optim.averaging import build_ema
from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.schedules import build_schedule
from supcon_pipeline.core.training.criteria import classification_criterion
from supcon_pipeline.core.training.loop import fit, train_step
from supcon_pipeline.core.training.precision import choose_precision
from supcon_pipeline.core.training.random_states import random_states, set_random_states
from supcon_pipeline.core.training.state import EpochRecord, StepRecord, Training
from supcon_pipeline.core.views.loading import Batch, build_loader
from supcon_pipeline.core.views.policy import ViewPolicy

pytestmark = pytest.mark.usefixtures("no_gpu")

SGD = {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}
COSINE = {"name": "cosine", "num_epochs": 3, "warmup_epochs": 1}


class TinyClassifier(nn.Module):
    """A batch norm, so that the mode matters, and a linear classifier of the pixels."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.norm, self.dropout, self.linear = nn.BatchNorm1d(12), nn.Dropout(dropout), nn.Linear(12, 3)

    def forward(self, images):
        return {"logits": self.linear(self.dropout(self.norm(images.flatten(1) / 255)))}


def build_tiny_loader(rng, num_views):
    images, policy = rng.integers(0, 256, (10, 2, 2, 3), dtype=np.uint8), ViewPolicy([], num_views)
    return build_loader(images, np.arange(10) % 3, np.arange(10), policy, 4, num_workers=0, seed=0)


@pytest.fixture
def loader(rng):
    """Three batches of one view."""
    return build_tiny_loader(rng, 1)


def build(model, loader, optimizer=SGD, schedule=COSINE, criterion=None, ema_decay=None, **others):
    chosen = build_optimizer(model, **optimizer)
    return Training(
        model,
        criterion or classification_criterion(0.0),
        loader,
        chosen,
        build_schedule(chosen, len(loader), **schedule),
        choose_precision("float32", torch.device("cpu")),
        build_ema(model, ema_decay, len(loader)) if ema_decay else None,
        **others,
    )


def start(training, num_epochs=3, validate=lambda _: {"score": 0.0}, **others):
    """The records of a training, asked for one by one."""
    return fit(training, num_epochs, validate, "score", **others)


def assert_same_weights(left, right):
    torch.testing.assert_close(dict(left.state_dict()), dict(right.state_dict()), rtol=0, atol=0)


def test_training_is_that_of_a_plain_loop(loader):
    model = TinyClassifier()
    plain = copy.deepcopy(model)
    records = list(start(build(model, loader)))
    steps = [record for record in records if isinstance(record, StepRecord)]
    epochs = [record for record in records if isinstance(record, EpochRecord)]

    optimizer = build_optimizer(plain, **SGD)
    schedule = build_schedule(optimizer, 3, **COSINE)
    losses, rates, norms = [], [], []
    for batch in chain.from_iterable(loader.epoch(epoch) for epoch in range(3)):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss = functional.cross_entropy(plain(batch.views[:, 0])["logits"], batch.labels)
        loss.backward()
        norms.append(torch.cat([p.grad.flatten() for p in plain.parameters()]).norm().item())
        optimizer.step()
        schedule.step()
        losses.append(loss.item())

    assert [record.loss.item() for record in steps] == losses
    assert [record.grad_norm.item() for record in steps] == pytest.approx(norms)
    assert [record.lr for record in steps] == rates
    assert [record.step for record in steps] == list(range(1, 10))
    assert [record.epoch for record in steps] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [record.num_images for record in steps] == [4, 3, 3] * 3
    assert {(record.collapse_loss, record.is_gradient_trusted) for record in steps} == {(None, True)}
    assert [record.epoch for record in epochs] == [1, 2, 3]
    assert [record.loss for record in epochs] == pytest.approx(np.reshape(losses, (3, 3)).mean(axis=1))
    torch.testing.assert_close(epochs[-1].tensors, dict(plain.state_dict()), rtol=0, atol=0)
    assert_same_weights(model, plain)


def test_an_epoch_has_the_learning_rate_of_its_last_step(loader):
    records = list(start(build(TinyClassifier(), loader)))
    rates = [record.lr for record in records if isinstance(record, StepRecord)]
    assert [record.lr for record in records if isinstance(record, EpochRecord)] == rates[2::3]


def test_each_epoch_comes_after_its_steps(loader):
    kinds = [type(record) for record in start(build(TinyClassifier(), loader), num_epochs=2)]
    assert kinds == [StepRecord, StepRecord, StepRecord, EpochRecord] * 2


def test_the_weights_of_a_record_are_those_of_its_epoch_and_stay_so(loader):
    snapshots = []

    def validate(validated):
        snapshots.append(copy.deepcopy(dict(validated.state_dict())))
        return {"score": float(len(snapshots))}

    records = start(build(TinyClassifier(), loader), validate=validate)
    records = [record for record in records if isinstance(record, EpochRecord)]
    assert [record.metrics for record in records] == [{"score": 1.0}, {"score": 2.0}, {"score": 3.0}]
    for record, snapshot in zip(records, snapshots, strict=True):
        torch.testing.assert_close(record.tensors, snapshot, rtol=0, atol=0)
    assert not torch.equal(records[0].tensors["linear.weight"], records[1].tensors["linear.weight"])


def test_a_record_carries_the_weights_that_are_asked_for(loader):
    model = TinyClassifier()
    *_, last = start(build(model, loader), state_of=lambda trained: trained.linear.state_dict())
    assert list(last.tensors) == ["weight", "bias"]
    assert torch.equal(last.tensors["weight"], model.linear.weight)
    assert not last.tensors["weight"].requires_grad


def test_the_moving_average_is_validated_and_carried_in_place_of_the_model(loader):
    training, validated = build(TinyClassifier(), loader, ema_decay=0.5), []
    *_, last = start(training, validate=lambda asked: validated.append(asked) or {"score": 0.0})
    assert validated == [training.ema.module] * 3
    assert training.ema.num_updates == 9
    torch.testing.assert_close(last.tensors, dict(training.ema.module.state_dict()), rtol=0, atol=0)
    assert not torch.equal(last.tensors["linear.weight"], training.model.linear.weight)


def test_the_model_beside_its_average_is_validated_where_that_is_asked_for(loader):
    training = build(TinyClassifier(), loader, ema_decay=0.5, is_raw_validated=True)
    *_, last = start(training, validate=lambda asked: {"score": float(asked is training.model)})
    assert last.metrics == {"score": 0.0, "raw.score": 1.0}


def test_without_an_average_there_is_no_model_beside_it(loader):
    *_, last = start(build(TinyClassifier(), loader, is_raw_validated=True))
    assert last.metrics == {"score": 0.0}


def test_a_moving_average_changes_nothing_in_the_model(loader):
    alone, averaged = TinyClassifier(), TinyClassifier()
    averaged.load_state_dict(alone.state_dict())
    list(start(build(alone, loader)))
    list(start(build(averaged, loader, ema_decay=0.5)))
    assert_same_weights(alone, averaged)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_validation_has_the_precision_of_the_training(loader, name):
    training, seen = build(TinyClassifier(), loader, ema_decay=0.5, is_raw_validated=True), []
    training.precision = choose_precision(name, torch.device("cpu"))
    list(start(training, 2, lambda _: seen.append(torch.is_autocast_enabled("cpu")) or {"score": 0.0}))
    assert seen == [name == "bfloat16"] * 4


def test_every_epoch_trains_in_training_mode_whatever_the_validation_sets(loader):
    model = TinyClassifier().eval()
    modes = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    training = build(model, loader)
    list(start(training, num_epochs=2, validate=lambda asked: asked.eval() and {"score": 0.0}))
    assert modes == [True] * 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_with_its_step(loader, bad):
    factors, plain = chain([1.0] * 4, [bad], repeat(1.0)), classification_criterion(0.0)
    constant = {"name": "constant", "num_epochs": 2, "warmup_epochs": 0}
    optimizer = {"name": "sgd", "lr": 0.25, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    criterion = lambda outputs, batch: plain(outputs, batch) * next(factors)  # noqa: E731
    training = build(TinyClassifier(), loader, optimizer, constant, criterion)
    with pytest.raises(
        FloatingPointError,
        match=r"loss must be finite, got (nan|inf) at step 5 with learning rate 0\.25; lower the",
    ):
        list(start(training, 2))
    # The epoch is not over.
    assert training.epoch == 1


def test_the_learning_rate_that_is_told_is_that_of_the_step(loader):
    factors, plain = chain([1.0, float("nan")], repeat(1.0)), classification_criterion(0.0)
    criterion = lambda outputs, batch: plain(outputs, batch) * next(factors)  # noqa: E731
    records = start(build(TinyClassifier(), loader, criterion=criterion))
    rates = [next(records).lr for _ in range(3)]
    assert len(set(rates)) == 3
    with pytest.raises(FloatingPointError, match=rf"at step 2 with learning rate {rates[1]:.3g}; "):
        next(records)


def test_in_float16_a_training_without_a_finite_gradient_is_stopped(loader):
    # Its value is 0, its gradient is not a number.
    criterion = lambda outputs, _: (outputs["logits"] * 0).square().sum().sqrt()  # noqa: E731
    training = build(TinyClassifier(), loader, criterion=criterion)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=True)
    training.precision = replace(training.precision, name="float16", scaler=scaler)
    with pytest.raises(FloatingPointError, match=r"gradient must be finite, got nan at step 3 "):
        list(start(training))


def test_a_resumed_training_keeps_the_precision_it_began_with(loader):
    first, second = build(TinyClassifier(), loader), build(TinyClassifier(), loader)
    first.precision = choose_precision("bfloat16", torch.device("cpu"))
    next(start(first))
    second.load_state_dict(first.state_dict())
    assert second.precision.name == "bfloat16"


@pytest.fixture
def scalar():
    """One weight of 3, whose square is the loss: of gradient 6."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    return model


def scalar_training(model, **others):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = build_schedule(optimizer, 1, "cosine", num_epochs=2, warmup_epochs=0)
    precision = choose_precision("float32", torch.device("cpu"))
    loss = lambda *_: model.weight.square().sum()  # noqa: E731
    return Training(model, loss, None, optimizer, schedule, precision, **others)


ONE_IMAGE = Batch(torch.zeros(1, 1, 1), torch.zeros(1, dtype=torch.int64))


def test_a_step_gives_the_loss_before_it_and_moves_along_the_gradient(scalar):
    # Left over from before: must not be added.
    scalar.weight.grad = torch.tensor([[100.0]])
    training = scalar_training(scalar)
    loss, norm = train_step(training, ONE_IMAGE)
    assert (loss.item(), norm.item()) == (9.0, pytest.approx(6.0))
    assert not loss.requires_grad
    assert scalar.weight.item() == pytest.approx(3.0 - 0.1 * 6.0)
    assert training.schedule.lr == pytest.approx(0.05)


def test_a_step_without_schedule_leaves_the_learning_rate(scalar):
    training = scalar_training(scalar)
    train_step(training, ONE_IMAGE, is_scheduled=False)
    assert training.schedule.lr == 0.1
    assert scalar.weight.item() == pytest.approx(2.4)


@pytest.mark.parametrize(("max_grad_norm", "applied"), [(2.0, 2.0), (6.5, 6.0), (None, 6.0)])
def test_a_gradient_longer_than_the_limit_is_applied_at_the_limit(scalar, max_grad_norm, applied):
    _, norm = train_step(scalar_training(scalar, max_grad_norm=max_grad_norm), ONE_IMAGE)
    # The norm is that before clipping.
    assert norm.item() == pytest.approx(6.0)
    assert scalar.weight.item() == pytest.approx(3.0 - 0.1 * applied, rel=1e-5)


def test_the_gradient_of_all_weights_together_is_limited_and_keeps_its_direction(loader):
    model = TinyClassifier()
    before = copy.deepcopy(dict(model.named_parameters()))
    optimizer = {"name": "sgd", "lr": 1.0, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    constant = {"name": "constant", "num_epochs": 1, "warmup_epochs": 0}
    training = build(model, loader, optimizer, constant, max_grad_norm=1e-2)
    batch = next(loader.epoch(0))
    plain = copy.deepcopy(model)
    functional.cross_entropy(plain(batch.views[:, 0])["logits"], batch.labels).backward()
    _, norm = train_step(training, batch)
    assert norm > 1e-2
    moved = torch.cat([(before[name] - p).detach().flatten() for name, p in model.named_parameters()])
    gradient = torch.cat([p.grad.flatten() for p in plain.parameters()])
    assert moved.norm().item() == pytest.approx(1e-2, rel=1e-3)
    torch.testing.assert_close(moved, gradient * (1e-2 / norm), rtol=1e-3, atol=1e-7)


def test_the_loss_of_a_collapsed_encoder_is_asked_for_each_batch_and_averaged(loader):
    asked = []

    def collapse_loss(labels, num_views):
        asked.append((sorted(labels.tolist()), num_views))
        return float(len(labels))

    records = list(start(build(TinyClassifier(), loader, collapse_loss=collapse_loss), 2))
    assert [r.collapse_loss for r in records if isinstance(r, StepRecord)] == [4.0, 3.0, 3.0] * 2
    assert [r.collapse_loss for r in records if isinstance(r, EpochRecord)] == [pytest.approx(10 / 3)] * 2
    assert sorted(chain.from_iterable(labels for labels, _ in asked[:3])) == sorted(np.arange(10) % 3)
    assert {num_views for _, num_views in asked} == {1}


def test_in_float16_the_gradient_is_not_trusted(loader):
    training = build(TinyClassifier(), loader)
    training.precision = replace(training.precision, name="float16")
    assert not next(start(training)).is_gradient_trusted


def test_a_plateau_follows_the_metric_of_the_validation(loader):
    plateau = {"name": "plateau", "num_epochs": 4, "warmup_epochs": 0, "decay_factor": 0.5, "patience": 0}
    losses = iter([0.5, 0.6, 0.4, 0.4])
    training = build(TinyClassifier(), loader, schedule=plateau)
    records = fit(training, 4, lambda _: {"log_loss": next(losses)}, "log_loss")
    rates = [record.lr for record in records if isinstance(record, StepRecord)]
    # A log-loss that rises is no improvement.
    assert rates == pytest.approx([0.1] * 6 + [0.05] * 6)


def interruptible(loader, optimizer, micro_batch_size):
    plateau = {"name": "plateau", "num_epochs": 4, "warmup_epochs": 1, "decay_factor": 0.5, "patience": 0}
    return build(
        TinyClassifier(dropout=0.3),
        loader,
        {"name": optimizer, "lr": 0.05, "weight_decay": 0.01},
        plateau,
        ema_decay=0.5,
        micro_batch_size=micro_batch_size,
        max_grad_norm=0.5,
        collapse_loss=lambda labels, _: float(labels.sum()),
    )


def follow(training, num_records=None):
    """Records as plain values, and the state after the last of them, by way of a file."""
    seen = []
    for record in start(training, 4, lambda model: {"score": float(model.linear.weight.sum() > 9)}):
        values = {name: getattr(record, name) for name in ("epoch", "lr", "collapse_loss")}
        seen.append({**values, "loss": float(record.loss)})
        if len(seen) == num_records:
            file = BytesIO()
            torch.save(training.state_dict(), file)
            return seen, torch.load(BytesIO(file.getvalue()), weights_only=True)
    return seen, training.state_dict()


# 4 epochs of 3 steps make 16 records; the 4th, 8th and 16th end an epoch.
@pytest.mark.parametrize("num_records", [1, 2, 3, 4, 7, 10, 16])
@pytest.mark.parametrize(
    ("optimizer", "micro_batch_size"), [("sgd", None), ("ranger", None), ("muon", None), ("sgd", 2)]
)
def test_a_training_resumed_at_any_record_ends_as_if_never_interrupted(
    rng, optimizer, micro_batch_size, num_records
):
    loader = build_tiny_loader(rng, 2)
    whole = interruptible(loader, optimizer, micro_batch_size)
    first_weights = copy.deepcopy(whole.model.state_dict())
    start_states = random_states()
    expected, _ = follow(whole)

    first = interruptible(loader, optimizer, micro_batch_size)
    first.model.load_state_dict(first_weights)
    first.ema.module.load_state_dict(first_weights)
    set_random_states(start_states)
    before, state = follow(first, num_records)

    # Another process: other first weights, other random numbers.
    torch.manual_seed(99)
    second = interruptible(loader, optimizer, micro_batch_size)
    second.load_state_dict(state)
    after, _ = follow(second)
    assert before + after == expected
    assert_same_weights(second.model, whole.model)
    assert_same_weights(second.ema.module, whole.ema.module)
    assert second.step == whole.step == 12


def test_weights_that_do_not_fit_are_refused(loader):
    state = build(TinyClassifier(), loader).state_dict()
    state["model"]["linear.weight"] = torch.zeros(4, 12)
    with pytest.raises(RuntimeError, match=r"size mismatch for linear\.weight"):
        build(TinyClassifier(), loader).load_state_dict(state)


def draw():
    return [torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.normal(size=3).tolist()]  # noqa: NPY002


def test_random_states_bring_back_the_numbers_of_every_generator():
    # An odd number of normal draws leaves one in the generator.
    random.gauss(0, 1)
    np.random.normal()  # noqa: NPY002
    states = random_states()
    expected = draw()
    file = BytesIO()
    torch.save(states, file)
    set_random_states(torch.load(BytesIO(file.getvalue()), weights_only=True))
    assert draw() == expected


class FakeCuda:
    """What torch says of the random generators of some GPUs."""

    def __init__(self, monkeypatch, num_gpus):
        self.states = [torch.full((16,), index, dtype=torch.uint8) for index in range(num_gpus)]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: self.states[0])
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: self.states)
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.set_state)
        monkeypatch.setattr(torch.cuda, "set_rng_state_all", self.set_all)

    def set_state(self, state, device=0):
        self.states[device] = state

    def set_all(self, states):
        for device, state in enumerate(states):
            self.set_state(state, device)


@pytest.mark.parametrize("num_gpus", [0, 1, 3])
def test_a_training_goes_on_with_another_number_of_gpus_in_sight(monkeypatch, num_gpus):
    saved = FakeCuda(monkeypatch, 2)
    saved.states[0] = torch.full((16,), 77, dtype=torch.uint8)
    states = random_states()
    later = FakeCuda(monkeypatch, num_gpus)
    set_random_states(states)
    assert [int(state[0]) for state in later.states] == [77, 1, 2][:num_gpus]


def test_a_training_of_the_cpu_goes_on_beside_a_gpu(monkeypatch):
    states = random_states()
    later = FakeCuda(monkeypatch, 1)
    set_random_states(states)
    assert int(later.states[0][0]) == 0


@pytest.mark.parametrize(("is_available", "kind"), [(True, "cuda"), (False, "cpu")])
def test_the_device_is_the_gpu_where_there_is_one(monkeypatch, is_available, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    assert pick_device().type == kind
