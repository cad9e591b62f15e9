import copy
import logging
import multiprocessing
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partialmethod
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.core.training.resume_process import NoLog
from tests.core.training.trainings import stage1_parameters, stage2_parameters
from torch import nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import DivergenceError, InputError
from supcon_pipeline.core.metrics.logits import require_finite_logits
from supcon_pipeline.core.models.encoder import Encoder, build_model, restore_model
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.training import progress, resumable
from supcon_pipeline.core.training.progress import ProgressStore
from supcon_pipeline.core.training.recipes import classifier_stage, contrastive_stage
from supcon_pipeline.core.training.resumable import run_stage
from supcon_pipeline.core.training.stage import Stage, build_training, sample_views
from supcon_pipeline.core.training.swa import average_models
from supcon_pipeline.core.training.validation import validate_features

pytestmark = pytest.mark.usefixtures("no_gpu")

MEAN, STD = [0.5] * 3, [0.3] * 3
ORIGIN = {"data_hash": "d1", "crop": "pad"}
CARD = {"mean": MEAN, "std": STD, **ORIGIN}
ENCODER = {
    "kind": "contrastive",
    "backbone": "resnet_narrow",
    "stem": "small_image",
    "image_size": 8,
    "mean": MEAN,
    "std": STD,
    "hidden_dim": 8,
    "dim": 4,
    "num_classes": 0,
}
SCHEDULED = {
    "transforms": [{"name": "HorizontalFlip", "args": {"p": 0.5}}],
    "schedule": {"name": "cosine", "num_epochs": 3, "warmup_epochs": 1},
    "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0001},
    "validation_batch_size": 10,
}
MAP_AT_R = "embedding.mean_average_precision_at_r"


def stage1(data, **changes):
    small = {
        "projection": {"hidden_dim": 8, "dim": 4},
        "ema": {"decay_per_epoch": 0.5},
        "checkpoints": {"metric": MAP_AT_R, "top_k": 2},
    }
    params = stage1_parameters(**{**SCHEDULED, **small, **changes})
    return contrastive_stage(data, CARD, params)


def stage2(encoder, data, **changes):
    small = {"label_smoothing": 0.0, "checkpoints": {"metric": "accuracy", "top_k": 3}}
    params = stage2_parameters(**{**SCHEDULED, **small, **changes})
    return classifier_stage(encoder, data, CARD, params)


@pytest.fixture
def train(tmp_path):
    """Run a stage that has no progress to go on from."""
    numbers = count()

    def run(stage, data, log=None):
        return run_stage(stage, data, log or NoLog(), ProgressStore(tmp_path / f"{next(numbers)}"), "r1")

    return run


def repainted(data, split):
    """The same data with other pictures in one split."""
    images = data.images.copy()
    images[data.indices(split)] = 255 - images[data.indices(split)]
    return replace(data, images=images)


@pytest.fixture
def encoder():
    return NamedTensors(build_model(ENCODER).state_dict(), {"model": ENCODER})


def test_stage_1_keeps_its_best_epochs_with_what_belongs_to_them(labelled_splits, train):
    checkpoints, history = train(stage1(labelled_splits), labelled_splits)
    best = sorted(history, key=lambda row: (-row[MAP_AT_R], -row["epoch"]))[:2]
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [checkpoint.metadata["epoch"] for checkpoint in checkpoints] == [row["epoch"] for row in best]
    for checkpoint, row in zip(checkpoints, best, strict=True):
        assert checkpoint.metadata["model"] == ENCODER
        assert {"run_id": "r1", **ORIGIN}.items() <= checkpoint.metadata.items()
        assert checkpoint.metadata["metrics"].items() <= row.items()
        assert row.keys() - checkpoint.metadata["metrics"].keys() == {"epoch", "loss", "lr", "collapse_loss"}
        # The weights are those that were validated: the moving average.
        again = validate_features(labelled_splits, 10)(restore_model(checkpoint))
        assert again == pytest.approx(checkpoint.metadata["metrics"])


def test_stage_1_depends_on_its_seed_alone(labelled_splits, train):
    first, _ = train(stage1(labelled_splits), labelled_splits)
    torch.manual_seed(123)
    again, _ = train(stage1(labelled_splits), labelled_splits)
    other, _ = train(stage1(labelled_splits, seed=1), labelled_splits)
    assert [fingerprint(part) for part in first] == [fingerprint(part) for part in again]
    assert fingerprint(first[0]) != fingerprint(other[0])


def test_test_images_change_nothing_in_either_stage(labelled_splits, train):
    results = []
    for data in (labelled_splits, repainted(labelled_splits, "test")):
        encoders, history = train(stage1(data), data)
        encoder = average_models(encoders, data, batch_size=8)
        classifiers, classifier_history = train(stage2(encoder, data), data)
        prints = [fingerprint(part) for part in (*encoders, encoder, *classifiers)]
        results.append((prints, history, classifier_history))
    assert results[0] == results[1]


def test_validation_images_choose_and_do_not_train(labelled_splits, train):
    weights = []
    for data in (labelled_splits, repainted(labelled_splits, "validation")):
        checkpoints, _ = train(stage1(data, checkpoints={"metric": MAP_AT_R, "top_k": 3}), data)
        weights.append({part.metadata["epoch"]: fingerprint(part) for part in checkpoints})
    assert weights[0] == weights[1]


@pytest.mark.parametrize("num_classes", [1, 12])
def test_a_metric_that_validation_cannot_measure_is_refused_before_the_first_step(num_classes, train):
    labels, splits = np.arange(48) % 12, np.repeat(["train", "validation"], [36, 12])
    splits[36 + num_classes :] = "test"
    data = LabelledImages(np.zeros((48, 16, 16, 3), np.uint8), labels, splits)
    stage = stage1(data, checkpoints={"metric": "projection.nmi", "top_k": 1})
    message = (
        rf"^stage1\.checkpoints\.metric must be one of retrieval where {num_classes} validation images of "
        rf"{num_classes} classes .*; add --params stage1\.checkpoints\.metric=projection\.r_precision$"
    )
    with pytest.raises(InputError, match=message):
        train(stage, data)


def test_without_a_moving_average_the_model_itself_is_kept(labelled_splits, train):
    # A decay that forgets at once is no average.
    averages = [None, {"decay_per_epoch": 1e-30}, {"decay_per_epoch": 0.9}]
    plain, forgetful, averaged = (
        train(
            stage1(labelled_splits, ema=ema, checkpoints={"metric": MAP_AT_R, "top_k": 3}), labelled_splits
        )[0]
        for ema in averages
    )
    name = "projection_head.0.weight"
    weights = [
        {part.metadata["epoch"]: part.tensors[name] for part in parts}
        for parts in (plain, forgetful, averaged)
    ]
    for epoch in (1, 2, 3):
        torch.testing.assert_close(weights[0][epoch], weights[1][epoch])
        assert not torch.allclose(weights[0][epoch], weights[2][epoch])


def test_a_micro_batch_of_the_whole_batch_changes_nothing_and_smaller_ones_change_batch_norm(
    labelled_splits, train
):
    whole, one_part, parts = (
        train(stage1(labelled_splits, micro_batch_size=size), labelled_splits)[0] for size in (None, 12, 5)
    )
    assert fingerprint(one_part[0]) == fingerprint(whole[0])
    assert fingerprint(parts[0]) != fingerprint(whole[0])


def test_stage_2_learns_classes_that_brightness_tells_apart(labelled_splits, encoder, train):
    schedule = {"name": "cosine", "num_epochs": 20, "warmup_epochs": 1}
    checkpoints, history = train(stage2(encoder, labelled_splits, schedule=schedule), labelled_splits)
    assert checkpoints[0].metadata["metrics"]["accuracy"] == 1.0
    assert history[-1]["loss"] < history[0]["loss"]


def test_without_transforms_each_image_is_embedded_once_and_the_classifier_is_the_same(
    labelled_splits, encoder, train, monkeypatch
):
    passes = []
    forward = Encoder.forward
    monkeypatch.setattr(
        Encoder, "forward", lambda self, images: passes.append(len(images)) or forward(self, images)
    )
    never = [{"name": "HorizontalFlip", "args": {"p": 0.0}}]
    slow, slow_history = train(stage2(encoder, labelled_splits, transforms=never), labelled_splits)
    num_slow, passes = sum(passes), passes[:0]
    fast, fast_history = train(stage2(encoder, labelled_splits, transforms=[]), labelled_splits)
    num_used = len(labelled_splits.indices("train")) + len(labelled_splits.indices("validation"))
    assert num_slow == 3 * num_used
    assert [part.metadata["epoch"] for part in fast] == [part.metadata["epoch"] for part in slow]
    for one, other in zip(fast, slow, strict=True):
        for name, tensor in one.tensors.items():
            torch.testing.assert_close(tensor, other.tensors[name])
    for metric in ("loss", "accuracy"):
        assert fast_history[-1][metric] == pytest.approx(slow_history[-1][metric], rel=1e-4)
    assert sum(passes) == num_used


def test_stage_2_keeps_the_classifier_alone_and_says_which_encoder_it_belongs_to(
    labelled_splits, encoder, train
):
    before = fingerprint(encoder)
    checkpoints, _ = train(stage2(encoder, labelled_splits), labelled_splits)
    assert fingerprint(encoder) == before
    assert len(checkpoints) == 3
    for checkpoint in checkpoints:
        assert {name: tuple(t.shape) for name, t in checkpoint.tensors.items()} == {
            "weight": (3, 256),
            "bias": (3,),
        }
        assert checkpoint.metadata["encoder_hash"] == before
        assert checkpoint.metadata["model"] == {"kind": "classifier", "num_features": 256, "num_classes": 3}
        assert {"run_id": "r1", "data_hash": "d1"}.items() <= checkpoint.metadata.items()


@pytest.fixture
def without_batch_norm():
    """Encoder and head whose images do not know of one another."""
    model = build_model(ENCODER)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, nn.GroupNorm(1, module.num_features))
    return model


@pytest.mark.parametrize("size", [1, 5])
def test_without_batch_norm_micro_batches_train_as_whole_batches_do(
    labelled_splits, train, without_batch_norm, size
):
    results = []
    for micro_batch_size in (None, size):
        # The optimizer goes on with what it is given: each training has weights of its own.
        stage = replace(stage1(labelled_splits), model=copy.deepcopy(without_batch_norm))
        checkpoints, history = train(replace(stage, micro_batch_size=micro_batch_size), labelled_splits)
        results.append(({part.metadata["epoch"]: part.tensors for part in checkpoints}, history))
    (whole, whole_history), (parts, history) = results
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in whole_history], rel=1e-5)
    assert parts.keys() == whole.keys()
    for epoch, tensors in whole.items():
        torch.testing.assert_close(parts[epoch], tensors, rtol=1e-4, atol=1e-5)


class TinyModel(nn.Module):
    """A linear classifier of the brightness, with a score of the test's choice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 3)

    def forward(self, images):
        return {"logits": self.linear(images.float().mean(dim=(1, 2, 3))[:, None] / 255)}


def cross_entropy(outputs, batch):
    return functional.cross_entropy(outputs["logits"], batch.labels)


def tiny_stage(
    validate=lambda _: {"accuracy": 0.0}, num_epochs=6, criterion=cross_entropy, stage_changes=(), **changes
):
    schedule = {"name": "constant", "num_epochs": num_epochs, "warmup_epochs": 0}
    checkpoints = {"metric": "accuracy", "top_k": 2}
    params = stage2_parameters(
        **{**SCHEDULED, "transforms": [], "schedule": schedule, "checkpoints": checkpoints, **changes}
    )
    torch.manual_seed(params.seed)
    parts = {"model": TinyModel(), "criterion": criterion, "validate": validate, **dict(stage_changes)}
    return Stage("tiny", num_views=1, params=params, description={}, origin={}, **parts)


def scores(*values):
    rest = iter(values)
    return lambda _: {"accuracy": next(rest)}


def test_training_stops_early_once_the_metric_has_stalled(labelled_splits, train):
    validate = scores(0.1, 0.3, 0.3, 0.2, 0.9, 0.9)
    checkpoints, history = train(tiny_stage(validate, early_stopping={"patience": 2}), labelled_splits)
    assert [row["accuracy"] for row in history] == [0.1, 0.3, 0.3, 0.2]
    assert [part.metadata["epoch"] for part in checkpoints] == [3, 2]


def test_without_early_stopping_every_epoch_is_trained(labelled_splits, train):
    _, history = train(tiny_stage(scores(*[0.5] * 6)), labelled_splits)
    assert len(history) == 6


def test_a_training_that_stopped_early_does_not_go_on_when_asked_again(labelled_splits, tmp_path):
    store, results = ProgressStore(tmp_path), []
    for values in ([0.3, 0.2, 0.2], []):
        stage = tiny_stage(scores(*values), early_stopping={"patience": 2})
        results.append(run_stage(stage, labelled_splits, NoLog(), store, "r1")[1])
    assert results[0] == results[1]
    assert len(results[0]) == 3


def test_validation_comes_at_its_interval_and_after_the_last_epoch(labelled_splits, train):
    # Of six epochs the fourth and, because it is the last, the sixth.
    checkpoints, history = train(tiny_stage(scores(0.5, 0.4), validation_interval=4), labelled_splits)
    assert [row.get("accuracy") for row in history] == [None, None, None, 0.5, None, 0.4]
    assert [part.metadata["epoch"] for part in checkpoints] == [4, 6]


def test_epochs_without_a_validation_do_not_count_as_stalled(labelled_splits, train):
    stage = tiny_stage(scores(0.5, 0.4, 0.4), validation_interval=2, early_stopping={"patience": 1})
    _, history = train(stage, labelled_splits)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]


def test_a_training_that_makes_it_worse_ends_where_it_started(labelled_splits, train):
    worse = {"optimizer": {"name": "sgd", "lr": 1e-7, "weight_decay": 0.0}, "ema": None}
    stage = stage1(labelled_splits, **worse)
    first, falling = fingerprint(NamedTensors(dict(stage.model.state_dict()))), count()

    def validate(_):
        return {MAP_AT_R: 0.9 - 0.1 * next(falling)}

    checkpoints, history = train(replace(stage, validate=validate, is_start_validated=True), labelled_splits)
    assert [part.metadata["epoch"] for part in checkpoints] == [0]
    assert fingerprint(checkpoints[0]) == first
    assert [(row["epoch"], row["loss"] is None, row[MAP_AT_R]) for row in history][:2] == [
        (0, True, 0.9),
        (1, False, 0.8),
    ]


def test_the_start_is_validated_once_however_often_a_training_is_taken_up(labelled_splits, tmp_path):
    store, epochs = ProgressStore(tmp_path), []

    def validate(_):
        epochs.append(len(epochs))
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return {MAP_AT_R: 0.5}

    stage = replace(stage1(labelled_splits), validate=validate, is_start_validated=True)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, labelled_splits, NoLog(), store, "r1")
    again = replace(stage1(labelled_splits), validate=validate, is_start_validated=True)
    _, history = run_stage(again, labelled_splits, NoLog(), store, "r1")
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert len(epochs) == 5


def test_validation_changes_no_weight(labelled_splits, train):
    often, seldom = (
        train(tiny_stage(scores(*[0.5] * 6), validation_interval=interval), labelled_splits)[0][0]
        for interval in (1, 3)
    )
    assert often.metadata["epoch"] == seldom.metadata["epoch"] == 6
    assert fingerprint(often) == fingerprint(seldom)


def test_a_collapse_is_warned_of_once(labelled_splits, train, caplog):
    stage = tiny_stage(
        criterion=lambda outputs, _: outputs["logits"].sum() * 0 + 2.5,
        stage_changes={"collapse_loss": lambda *_: 2.5},
    )
    with caplog.at_level(logging.WARNING):
        _, history = train(stage, labelled_splits)
    assert caplog.text.count("the encoder has collapsed") == 1
    assert "loss 2.500 is stuck at 2.500" in caplog.text
    assert [row["collapse_loss"] for row in history] == [2.5] * 6


class FailingLoss:
    """The cross-entropy, and what is not finite from the n-th step on."""

    def __init__(self, first_bad_step):
        self.first_bad_step, self.step = first_bad_step, 0

    def __call__(self, outputs, batch):
        self.step += 1
        return cross_entropy(outputs, batch) * (float("nan") if self.step >= self.first_bad_step else 1.0)


@pytest.mark.parametrize("first_bad_step", [2, 99])
def test_the_workers_of_a_training_end_with_it_however_it_ends(first_bad_step, labelled_splits, tmp_path):
    loader = {"batch_size": 12, "num_workers": 1}
    stage = tiny_stage(num_epochs=1, criterion=FailingLoss(first_bad_step), loader=loader)
    with pytest.raises(DivergenceError) if first_bad_step == 2 else nullcontext():
        run_stage(stage, labelled_splits, NoLog(), ProgressStore(tmp_path), "r1")
    assert not multiprocessing.active_children()


def test_a_rate_beyond_reason_is_answered_with_one_that_trains(labelled_splits, tmp_path):
    stage = tiny_stage(criterion=FailingLoss(1), optimizer={"name": "sgd", "lr": 1e30, "weight_decay": 0.0})
    with pytest.raises(DivergenceError, match=r"for example with --params tiny\.optimizer\.lr=0\.1; no val"):
        run_stage(stage, labelled_splits, NoLog(), ProgressStore(tmp_path), "r1")


def test_a_training_by_the_parameters_of_another_stage_is_answered_with_those(labelled_splits, tmp_path):
    optimizer = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0}
    stage = replace(tiny_stage(criterion=FailingLoss(1), optimizer=optimizer), optimizer_group="stage2")
    with pytest.raises(DivergenceError, match=r"for example with --params stage2\.optimizer\.lr=0\.01"):
        run_stage(stage, labelled_splits, NoLog(), ProgressStore(tmp_path), "r1")


def test_a_model_that_diverged_unseen_by_its_loss_is_answered_with_a_rate_by_its_name(
    labelled_splits, tmp_path
):
    stage = replace(tiny_stage(), validate=lambda *_: require_finite_logits(np.full((1, 2), np.nan)))
    with pytest.raises(DivergenceError, match=r"logits must be .* for example with --params tiny\.optimizer"):
        run_stage(stage, labelled_splits, NoLog(), ProgressStore(tmp_path), "r1")


def test_a_loss_that_is_not_finite_stops_and_leaves_the_progress_of_the_epoch_before(
    labelled_splits, tmp_path
):
    # 24 training images in batches of 12: the fifth step begins the third epoch.
    stage, store = (
        tiny_stage(criterion=FailingLoss(5), progress_minutes=0),
        ProgressStore(tmp_path),
    )
    with pytest.raises(
        FloatingPointError,
        match=r"loss must be finite, got nan at step 5 with learning rate 0\.1; lower the .*, "
        r"for example with --params tiny\.optimizer\.lr=0\.01; "
        r"the best saved epoch, [12], is kept in .*state\.pt",
    ):
        run_stage(stage, labelled_splits, NoLog(), store, "r1")
    state = store.open(tiny_stage().identity()).latest()
    assert (state["training"]["epoch"], state["training"]["step"]) == (2, 4)
    assert [row["epoch"] for row in state["history"]] == [1, 2]
    assert all(tensor.isfinite().all() for tensor in state["training"]["model"].values())
    # Where the cause was outside, the training goes on.
    _, history = run_stage(tiny_stage(), labelled_splits, NoLog(), store, "r1")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]


class Clock:
    """The time in seconds, which goes on as the test says."""

    def __init__(self, monkeypatch):
        self.seconds, self.saved, self.monkeypatch = 0.0, [], monkeypatch
        monkeypatch.setattr(resumable, "time", SimpleNamespace(monotonic=lambda: self.seconds))

    def training(self, seconds, criterion=cross_entropy):
        def slow_loss(outputs, batch):
            self.seconds += seconds
            return criterion(outputs, batch)

        return slow_loss

    def store(self, folder, seconds):
        """A store that is slow to save states, and notes the epochs and steps of each."""

        @contextmanager
        def path(target, *options):
            with atomic_path(target, *options) as temporary:
                yield temporary
                if target.name == "state.pt":
                    self.seconds += seconds
                    state = torch.load(temporary, weights_only=True)["training"]
                    self.saved.append((state["epoch"], state["step"]))

        self.monkeypatch.setattr(progress, "atomic_path", path)
        return ProgressStore(folder)


@pytest.mark.parametrize(
    ("saving_seconds", "minutes", "expected"),
    [
        # Two steps of a second make an epoch. A twentieth of two seconds is borne at each of them,
        (0.0625, None, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        # of five seconds at every third; the last epoch is saved however soon.
        (0.25, None, [(1, 2), (4, 8), (6, 12)]),
        (1000, None, [(1, 2), (6, 12)]),
        # Four or five steps after the last saving, whether these end an epoch or not.
        (1000, 4 / 60, [(1, 2), (2, 6), (4, 10), (6, 12)]),
        (1000, 5 / 60, [(1, 2), (3, 7), (5, 12), (6, 12)]),
    ],
)
def test_saving_takes_a_twentieth_of_the_time_at_most_and_the_last_epoch_is_always_saved(
    labelled_splits, tmp_path, monkeypatch, saving_seconds, minutes, expected
):
    clock = Clock(monkeypatch)
    stage = tiny_stage(criterion=clock.training(1), progress_minutes=minutes)
    run_stage(stage, labelled_splits, NoLog(), clock.store(tmp_path, saving_seconds), "r1")
    assert clock.saved == expected


def test_a_training_that_stops_early_is_saved_at_its_end(labelled_splits, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    stage = tiny_stage(scores(0.5, 0.4, 0.4), early_stopping={"patience": 2}, progress_minutes=None)
    run_stage(stage, labelled_splits, NoLog(), clock.store(tmp_path, 1000), "r1")
    assert clock.saved == [(1, 2), (3, 6)]


def test_a_training_that_goes_wrong_names_the_best_epoch_that_was_saved(
    labelled_splits, tmp_path, monkeypatch
):
    clock = Clock(monkeypatch)
    # The second epoch is better, but was never saved.
    stage = tiny_stage(scores(0.1, 0.9), criterion=FailingLoss(5), progress_minutes=None)
    with pytest.raises(FloatingPointError, match=r"the best saved epoch, 1, is kept in .*state\.pt"):
        run_stage(stage, labelled_splits, NoLog(), clock.store(tmp_path, 1000), "r1")
    stage = tiny_stage(criterion=FailingLoss(1))
    with pytest.raises(FloatingPointError, match="no validated epoch was saved"):
        run_stage(stage, labelled_splits, NoLog(), ProgressStore(tmp_path / "other"), "r1")


class Interrupting:
    """A criterion that is interrupted before the n-th step."""

    def __init__(self, criterion, step):
        self.criterion, self.step = criterion, step

    def __call__(self, outputs, batch):
        self.step -= 1
        if not self.step:
            raise KeyboardInterrupt
        return self.criterion(outputs, batch)


def read_events(folder):
    """Scalars of a TensorBoard log by tag, the last of each step."""
    events = EventAccumulator(str(folder)).Reload()
    scalars = {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }
    return events, scalars


@pytest.mark.parametrize(("kind", "minutes"), [("stage 1", 0), ("stage 1", None), ("stage 2", 0)])
def test_an_interrupted_training_goes_on_and_its_log_is_that_of_the_whole(
    labelled_splits, encoder, tmp_path, kind, minutes
):
    def make_stage():
        if kind == "stage 1":
            return stage1(labelled_splits, progress_minutes=minutes)
        return stage2(encoder, labelled_splits, progress_minutes=minutes)

    logs, stores = (
        {name: tmp_path / part / name for name in ("whole", "resumed")} for part in ("log", "store")
    )
    with SummaryWriter(logs["whole"]) as log:
        expected, expected_history = run_stage(
            make_stage(), labelled_splits, log, ProgressStore(stores["whole"]), "r1"
        )
    store = ProgressStore(stores["resumed"])
    stage = make_stage()
    with pytest.raises(KeyboardInterrupt), SummaryWriter(tmp_path / "lost") as log:
        run_stage(
            replace(stage, criterion=Interrupting(stage.criterion, 6)), labelled_splits, log, store, "r1"
        )
    with SummaryWriter(logs["resumed"]) as log:
        checkpoints, history = run_stage(make_stage(), labelled_splits, log, store, "r1")
    assert history == expected_history
    assert [fingerprint(part) for part in checkpoints] == [fingerprint(part) for part in expected]
    whole, resumed = (
        {tag: values for tag, values in read_events(logs[name])[1].items() if tag.startswith("epoch/")}
        for name in ("whole", "resumed")
    )
    assert resumed == whole


def test_hyper_parameters_and_views_go_to_the_log(labelled_splits, train, tmp_path):
    with SummaryWriter(tmp_path / "log") as log:
        _, history = train(stage1(labelled_splits), labelled_splits, log)
    files = list((tmp_path / "log").glob("**/events*"))
    assert {file.parent for file in files} == {tmp_path / "log"}
    events, scalars = read_events(tmp_path / "log")
    (image,) = events.Images("views")
    # Two views of eight images of 8 by 8 pixels, in a grid or a column.
    assert image.width * image.height >= 16 * 64
    assert scalars["step/loss"].keys() == set(range(1, 7))
    assert scalars[f"epoch/{MAP_AT_R}"] == pytest.approx({row["epoch"]: row[MAP_AT_R] for row in history})
    assert scalars[f"final/{MAP_AT_R}"] == pytest.approx({0: history[-1][MAP_AT_R]})
    assert events.SummaryMetadata("_hparams_/experiment").plugin_data.plugin_name == "hparams"


class Recording(NoLog):
    """Keeps what it is given, by the name of the method."""

    def __init__(self):
        self.calls = {}

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.setdefault(name, []).append((args, kwargs))


def test_the_table_of_hyper_parameters_names_numbers_and_words_by_dotted_name(labelled_splits, train):
    log = Recording()
    _, history = train(stage1(labelled_splits), labelled_splits, log)
    (((params, metrics), _),) = log.calls["add_hparams"]
    expected = {
        "stage": "stage1",
        "seed": 0,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.1,
        "schedule.num_epochs": 3,
        "loss.temperature": 0.1,
        "ema.decay_per_epoch": 0.5,
        "backbone.name": "resnet_narrow",
        "transforms.0.name": "HorizontalFlip",
        "transforms.0.args.p": 0.5,
        "compile": False,
    }
    assert expected.items() <= params.items()
    assert all(isinstance(value, int | float | str) for value in params.values())
    assert metrics[f"final/{MAP_AT_R}"] == history[-1][MAP_AT_R]


def test_the_weights_beside_their_average_are_in_history_and_log_but_choose_nothing(labelled_splits, train):
    ema, log = {"decay_per_epoch": 0.5, "is_raw_validated": True}, Recording()
    checkpoints, history = train(stage1(labelled_splits, ema=ema), labelled_splits, log)
    plain, plain_history = train(stage1(labelled_splits), labelled_splits)
    assert [row[f"raw.{MAP_AT_R}"] for row in history] != [row[MAP_AT_R] for row in history]
    assert [row[MAP_AT_R] for row in history] == [row[MAP_AT_R] for row in plain_history]
    assert [part.metadata["epoch"] for part in checkpoints] == [part.metadata["epoch"] for part in plain]
    logged = {args[0] for args, _ in log.calls["add_scalar"]}
    assert {f"epoch/{MAP_AT_R}", f"epoch/raw.{MAP_AT_R}", "epoch/raw.projection.nmi"} <= logged


def test_the_views_in_the_log_are_of_training_images_of_all_classes(labelled_splits, train):
    # Class by class, as folders come.
    order = np.argsort(labelled_splits.labels, kind="stable")
    data = LabelledImages(*(getattr(labelled_splits, name)[order] for name in ("images", "labels", "splits")))
    log = Recording()
    train(tiny_stage(), data, log)
    ((arguments, options),) = log.calls["add_images"]
    assert arguments[0] == "views"
    # Eight images of each of three classes: of 24, every third. Without transforms, views are the images.
    assert np.array_equal(arguments[1], data.images[data.indices("train")[::3]])
    assert options == {"dataformats": "NHWC"}


def test_compiling_the_model_changes_no_weight_and_compiles_no_average(labelled_splits, train, monkeypatch):
    # The backend that compiles to machine code takes a minute.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    ema = {"decay_per_epoch": 0.5}
    stage = tiny_stage(num_epochs=2, ema=ema, compile=True)
    training = build_training(stage, labelled_splits)
    assert training.model._compiled_call_impl is not None
    assert training.ema.module._compiled_call_impl is None
    compiled, history = train(stage, labelled_splits)
    plain, plain_history = train(tiny_stage(num_epochs=2, ema=ema), labelled_splits)
    assert history == plain_history
    assert [fingerprint(part) for part in compiled] == [fingerprint(part) for part in plain]


def classifier_state(weight, epoch):
    tensors = {"weight": torch.full((3, 4), weight), "bias": torch.full((3,), -weight)}
    description = {"kind": "classifier", "num_features": 4, "num_classes": 3}
    return NamedTensors(
        tensors, {"model": description, "epoch": epoch, "metrics": {"accuracy": weight}, **ORIGIN}
    )


def test_models_without_batch_norm_are_averaged_entry_by_entry(labelled_splits):
    average = average_models([classifier_state(1.0, 4), classifier_state(2.0, 2)], labelled_splits, 8)
    assert average.tensors["weight"].unique().tolist() == [1.5]
    assert average.tensors["bias"].unique().tolist() == [-1.5]
    assert average.metadata == {
        "model": {"kind": "classifier", "num_features": 4, "num_classes": 3},
        "averaged": [{"epoch": 4, "metrics": {"accuracy": 1.0}}, {"epoch": 2, "metrics": {"accuracy": 2.0}}],
        **ORIGIN,
    }


def checkpoint_of(state, epoch=1):
    return NamedTensors(state, {"model": ENCODER, "epoch": epoch, "metrics": {}})


def test_an_averaged_encoder_has_the_batch_norm_statistics_of_the_training_images(labelled_splits, encoder):
    # One batch, so that the statistics do not depend on the order.
    average = average_models([checkpoint_of(encoder.tensors)], labelled_splits, batch_size=24)
    model = restore_model(encoder)
    images = torch.from_numpy(labelled_splits.images[labelled_splits.splits == "train"])
    pixels = model.encoder.backbone.stem[0]((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.3)
    mean, var = pixels.mean(dim=(0, 2, 3)), pixels.var(dim=(0, 2, 3))
    torch.testing.assert_close(average.tensors["encoder.backbone.stem.1.running_mean"], mean)
    torch.testing.assert_close(average.tensors["encoder.backbone.stem.1.running_var"], var)
    weight = "encoder.backbone.stem.0.weight"
    assert torch.equal(average.tensors[weight], encoder.tensors[weight])


def test_the_weights_that_training_starts_from_are_kept_as_they_were_validated(labelled_splits, encoder):
    average = average_models([checkpoint_of(encoder.tensors, epoch=0)], labelled_splits, batch_size=24)
    assert fingerprint(NamedTensors(average.tensors)) == fingerprint(NamedTensors(encoder.tensors))


def test_a_last_batch_of_one_image_is_averaged_like_any_other(labelled_splits, encoder):
    # 24 training images in batches of 23; at this size the last stage leaves one pixel of each.
    average = average_models([checkpoint_of(encoder.tensors)], labelled_splits, batch_size=23)
    assert all(tensor.isfinite().all() for tensor in average.tensors.values())


def test_the_views_to_look_at_are_of_training_images_of_all_classes(labelled_splits):
    params = stage2_parameters(**SCHEDULED)
    images, batch = sample_views(params, 2, labelled_splits, num_images=6)
    train = labelled_splits.images[labelled_splits.indices("train")]
    assert all((train == image).all(axis=(1, 2, 3)).any() for image in images)
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.views.shape == (6, 2, 8, 8, 3)
    mixed = stage2_parameters(**SCHEDULED, mixing={"name": "mixup", "alpha": 1.0, "probability": 1.0})
    assert sample_views(mixed, 1, labelled_splits)[1].labels.shape == (8, 3)


def test_a_policy_that_gives_views_of_unequal_shape_is_refused_before_training(labelled_splits):
    crop = {"name": "RandomCrop", "args": {"height": 4, "width": 4, "p": 0.5}}
    with pytest.raises(ValueError, match=r"views of one shape, got .* because of RandomCrop"):
        build_training(stage1(labelled_splits, transforms=[crop]), labelled_splits)
