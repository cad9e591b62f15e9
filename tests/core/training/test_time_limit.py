"""Trainings that end when their time is up."""

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.core.training.resume_process import NoLog
from tests.core.training.trainings import CARD, make_data, read_parameters, stage1_parameters

from supcon_pipeline.core.optim.schedules import warmup_cosine_factor
from supcon_pipeline.core.training import loop
from supcon_pipeline.core.training.loop import fit, is_over
from supcon_pipeline.core.training.progress import ProgressStore
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.resumable import run_stage
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.training.state import EpochRecord, StepRecord, Training
from supcon_pipeline.core.views.policy import ViewPolicy

pytestmark = pytest.mark.usefixtures("no_gpu")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a second."""
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))


def build(max_minutes: float | None, **changes: Any) -> Training:
    """Three steps an epoch, ten epochs at most."""
    schedule = {"name": "cosine", "num_epochs": 10, "warmup_epochs": 0}
    data = make_data()
    params = stage1_parameters(schedule=schedule, max_minutes=max_minutes, **changes)
    return build_training(contrastive_stage(data, CARD, params), data)


def records_of(training: Training) -> list[StepRecord | EpochRecord]:
    return list(fit(training, 10, lambda _: {"score": 0.0}, "score", validation_interval=4))


def test_a_training_ends_in_the_middle_of_an_epoch_when_its_time_is_up_and_is_validated() -> None:
    training = build(max_minutes=5 / 60)
    records = records_of(training)
    steps = [record for record in records if isinstance(record, StepRecord)]
    epochs = [record for record in records if isinstance(record, EpochRecord)]
    assert [record.epoch for record in steps] == [1, 1, 1, 2, 2]
    assert [(record.epoch, "score" in record.metrics) for record in epochs] == [(1, False), (2, True)]
    assert training.seconds == 5
    assert is_over(training, 10)


def test_the_rate_falls_by_the_share_of_the_time_that_is_used_up() -> None:
    rates = [record.lr for record in records_of(build(max_minutes=5 / 60)) if isinstance(record, StepRecord)]
    # A step of five seconds is six of the thirty steps that were planned; the first is measured after it.
    places = [0, 1, 6, 12, 18]
    assert rates == pytest.approx([0.1 * warmup_cosine_factor(place, 30, 0) for place in places])


def test_where_all_epochs_are_done_before_the_time_is_up_it_changes_nothing() -> None:
    limited, free = (records_of(build(max_minutes)) for max_minutes in (1, None))
    assert len(limited) == len(free) == 40
    for left, right in zip(limited, free, strict=True):
        assert (left.epoch, left.lr) == (right.epoch, right.lr)
        assert left.loss is not None
        assert float(left.loss) == float(right.loss or 0)


def test_views_grow_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    make_views = ViewPolicy.__call__

    def watch(policy: ViewPolicy, *given: Any) -> Any:
        views = make_views(policy, *given)
        sizes.append(views.shape[2])
        return views

    training = build(max_minutes=8 / 60, view_sizes=(8, 16), transforms=[{"name": "Resize"}])
    monkeypatch.setattr(ViewPolicy, "__call__", watch)
    records_of(training)
    # Half of the time is used up after four of the eight steps, which the views of the step after next show.
    assert sizes[:8] == [8] * 5 + [16] * 3


def test_what_waits_for_an_epoch_waits_for_its_share_of_the_time() -> None:
    training = build(
        max_minutes=8 / 60,
        finetune={"freeze_epochs": 5},
        loss={**read_parameters("stage1")["loss"], "memory": {"size": 8, "warmup_epochs": 5}},
    )
    weight = training.model.encoder.backbone.stem[0].weight
    seen = []
    for record in fit(training, 10, lambda _: {"score": 0.0}, "score", validation_interval=4):
        if isinstance(record, StepRecord):
            seen.append((weight.requires_grad, training.memory.is_used))
    # Five of the ten epochs are half of the time, which the schedule knows of a step later.
    assert seen == [(False, False)] * 5 + [(True, True)] * 3


def test_the_time_that_was_used_up_is_part_of_the_state() -> None:
    first, whole = build(max_minutes=5 / 60), build(max_minutes=5 / 60)
    for _ in itertools.islice(fit(first, 10, lambda _: {"score": 0.0}, "score"), 4):
        pass
    second = build(max_minutes=5 / 60)
    second.load_state_dict(first.state_dict())
    assert second.seconds == first.seconds == 3
    remaining = [record for record in records_of(second) if isinstance(record, StepRecord)]
    assert len(remaining) == 2
    assert [record.lr for record in remaining] == [
        record.lr for record in records_of(whole) if isinstance(record, StepRecord)
    ][3:]


@pytest.mark.parametrize(("max_minutes", "num_waits"), [(5 / 60, 5), (None, 0)])
def test_where_time_is_limited_each_step_counts_with_what_its_device_has_still_to_do(
    max_minutes: float | None, num_waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[Any] = []
    monkeypatch.setattr(loop, "wait_for", waits.append)
    records_of(build(max_minutes))
    assert [device.type for device in waits] == ["cpu"] * num_waits


@pytest.mark.parametrize(("max_minutes", "is_over_soon"), [(15 / 60, True), (9 / 60, False), (None, True)])
def test_a_collapse_is_warned_of_after_a_warm_up_that_time_has_shortened(
    max_minutes: float | None, is_over_soon: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    num_epochs, warmup_epochs = (30, 9) if max_minutes else (4, 2)
    schedule = {"name": "cosine", "num_epochs": num_epochs, "warmup_epochs": warmup_epochs}
    data = make_data()
    stage = contrastive_stage(data, CARD, stage1_parameters(schedule=schedule, max_minutes=max_minutes))
    stuck = replace(
        stage,
        criterion=lambda outputs, _: outputs["projection"].sum() * 0 + 2.5,
        collapse_loss=lambda *_: 2.5,
    )
    with caplog.at_level(logging.WARNING):
        _, history = run_stage(stuck, data, NoLog(), ProgressStore(tmp_path), "r")
    assert len(history) == (max_minutes * 20 if max_minutes else num_epochs)
    assert ("the encoder has collapsed" in caplog.text) == is_over_soon
