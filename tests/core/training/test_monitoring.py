import logging
from types import SimpleNamespace

import pytest
import torch

from supcon_pipeline.core.training import monitoring
from supcon_pipeline.core.training.monitoring import Monitor, warn_of_collapse
from supcon_pipeline.core.training.state import EpochRecord, StepRecord


class ScalarList(list):
    """A log that keeps `(tag, value, step)`."""

    def add_scalar(self, tag, scalar_value, global_step):
        self.append((tag, scalar_value, global_step))

    def of(self, tag):
        return [(value, step) for name, value, step in self if name == tag]


def step_record(step, loss=None, norm=None, collapse=None, is_trusted=True):
    loss, norm = (torch.tensor(float(given or step / 4)) for given in (loss, norm))
    return StepRecord(step, 1, loss, norm * 2, step / 100, 8, collapse, is_trusted)


def epoch_record(epoch, score, **others):
    metrics = {"score": score, **others}
    return EpochRecord(epoch, epoch / 2, epoch / 10, None, metrics, {"w": torch.tensor(epoch)})


def training_records(num_epochs=2, steps_per_epoch=5):
    for epoch in range(1, num_epochs + 1):
        for step in range(steps_per_epoch):
            yield step_record((epoch - 1) * steps_per_epoch + step + 1)
        yield epoch_record(epoch, score=epoch / 8)


def build_monitor(log, num_steps, num_epochs=2, **options):
    return Monitor("stage", log, num_steps, num_epochs, metric="score", **options)


def show(monitor, records):
    with monitor:
        for record in records:
            if isinstance(record, EpochRecord):
                monitor.show_epoch(record)
            else:
                monitor.show_step(record)


@pytest.mark.parametrize("log_every", [1, 3, 5, 100])
def test_every_step_and_every_epoch_is_logged_however_often_losses_are_read(log_every):
    log = ScalarList()
    show(build_monitor(log, 10, log_every=log_every), training_records())
    assert log.of("step/loss") == [(step / 4, step) for step in range(1, 11)]
    assert log.of("step/gradient_norm") == [(step / 2, step) for step in range(1, 11)]
    assert log.of("step/lr") == [(step / 100, step) for step in range(1, 11)]
    assert log.of("epoch/loss") == [(0.5, 1), (1.0, 2)]
    assert log.of("epoch/score") == [(0.125, 1), (0.25, 2)]
    assert not log.of("step/collapse_loss")


def test_the_loss_of_a_collapsed_encoder_is_logged_beside_the_loss():
    log = ScalarList()
    show(build_monitor(log, 2, log_every=1), [step_record(1, collapse=3.5), step_record(2, collapse=3.25)])
    assert log.of("step/collapse_loss") == [(3.5, 1), (3.25, 2)]


def test_losses_are_read_in_groups_and_at_the_end_of_an_epoch():
    log, num_read = ScalarList(), []

    def watched():
        for record in training_records(num_epochs=1):
            num_read.append(len(log.of("step/loss")))
            yield record
        num_read.append(len(log.of("step/loss")))

    show(build_monitor(log, 5, log_every=2), watched())
    assert num_read == [0, 0, 2, 2, 4, 4, 5]


def test_the_speed_is_in_images_per_second_without_the_validation(monkeypatch):
    # Start; two readings of an epoch; the end of its validation; two readings of the next.
    clock = iter([100.0, 102.0, 103.0, 1000.0, 1008.0, 1009.0, 2000.0])
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(perf_counter=clock.__next__))
    log = ScalarList()
    show(build_monitor(log, 6, log_every=2), training_records(2, steps_per_epoch=3))
    assert log.of("step/images_per_second") == [
        *((16 / 2, step) for step in (1, 2)),
        (8 / 1, 3),
        *((16 / 8, step) for step in (4, 5)),
        (8 / 1, 6),
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_learning_rate(bad):
    log, records = ScalarList(), [step_record(1), step_record(2, loss=bad), step_record(3)]
    with pytest.raises(
        FloatingPointError,
        match=r"loss must be finite, got (nan|-?inf) at step 2 with learning rate 0\.02; lower the learning",
    ):
        show(build_monitor(log, 3, log_every=3), records)
    assert log.of("step/loss") == [(0.25, 1)]


def test_a_gradient_that_is_not_finite_stops_where_the_precision_has_no_overflow():
    with pytest.raises(
        FloatingPointError, match=r"gradient norm must be finite, got inf at step 7 with learning rate 0\.07"
    ):
        show(build_monitor(ScalarList(), 9, log_every=1), [step_record(7, norm=float("inf"))])
    log = ScalarList()
    show(build_monitor(log, 9, log_every=1), [step_record(7, norm=float("inf"), is_trusted=False)])
    assert log.of("step/gradient_norm") == [(float("inf"), 7)]


@pytest.fixture
def lines(caplog, monkeypatch):
    """What is said of epochs, whatever the project's configuration does with it."""
    monkeypatch.setattr(monitoring.epoch_logger, "propagate", False)
    monkeypatch.setattr(monitoring.epoch_logger, "handlers", [caplog.handler])
    caplog.set_level(logging.INFO, logger=monitoring.epoch_logger.name)
    return lambda: [record.getMessage() for record in caplog.records]


def test_where_there_is_no_terminal_every_epoch_has_a_line_and_nothing_else_is_printed(
    monkeypatch, lines, capsys
):
    # Start; a reading and the end of the validation of each epoch: 20 of its 30 seconds are training.
    clock = iter([100.0, 120.0, 130.0, 150.0, 160.0])
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(perf_counter=clock.__next__))
    show(build_monitor(ScalarList(), 10), training_records())
    assert lines() == [
        "stage: epoch 1/2, loss 0.500, score 0.1250, 2 images/s, 0:00:30 left",
        "stage: epoch 2/2, loss 1.000, score 0.2500, 2 images/s",
    ]
    assert capsys.readouterr().out.strip() == ""


def test_the_time_left_of_a_resumed_training_is_that_of_the_steps_since(monkeypatch, lines):
    clock = iter([0.0, 6.0, 8.0])
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(perf_counter=clock.__next__))
    records = [step_record(991), step_record(992), epoch_record(3, score=0.5)]
    show(build_monitor(ScalarList(), 2792, 8, first_step=990), records)
    # Four seconds for each of 1800 steps.
    assert lines() == ["stage: epoch 3/8, loss 1.500, score 0.5000, 3 images/s, 2:00:00 left"]


def test_an_epoch_without_steps_or_validation_has_the_rest_of_a_line(lines):
    show(build_monitor(ScalarList(), 10, first_step=5), [EpochRecord(1, 0.5, 0.1, None, {}, {})])
    assert lines() == ["stage: epoch 1/2, loss 0.500"]


@pytest.fixture
def _terminal(monkeypatch):
    for name in ("NO_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rich._console", None)


@pytest.mark.usefixtures("_terminal")
def test_on_a_terminal_the_bar_counts_the_steps_and_no_line_doubles_it(capsys, lines):
    show(build_monitor(ScalarList(), 10), training_records())
    assert "10/10 steps" in capsys.readouterr().out
    assert lines() == []


@pytest.mark.usefixtures("_terminal")
def test_the_bar_of_a_resumed_training_goes_on_where_it_was(capsys):
    with build_monitor(ScalarList(), 10, first_step=4):
        pass
    assert "4/10 steps" in capsys.readouterr().out


@pytest.mark.usefixtures("_terminal")
def test_the_cursor_comes_back_after_an_error(capsys):
    with pytest.raises(KeyError), build_monitor(ScalarList(), 10):
        raise KeyError
    # ECMA-48: show the cursor.
    assert "\x1b[?25h" in capsys.readouterr().out


def history(*losses, collapse_loss=4.0):
    return [
        {"epoch": epoch, "loss": loss, "lr": 0.1, "collapse_loss": collapse_loss}
        for epoch, loss in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("losses", "num_warmup_epochs", "has_collapsed"),
    [
        # 0.5 % of 4 is 0.02, and the bound is no part of it.
        ([4.0, 4.0], 0, True),
        ([4.019, 3.981], 0, True),
        ([4.0, 4.021], 0, False),
        ([3.979, 4.0], 0, False),
        ([9.0, 3.0, 4.01, 4.01], 0, True),
        ([4.0, 4.0, 3.0], 0, False),
        # One epoch may pass through it; the warm-up may sit on it.
        ([4.0], 0, False),
        ([4.0, 4.0], 1, False),
        ([4.0, 4.0, 4.0], 1, True),
        ([4.0, 4.0, 4.0], 2, False),
        ([], 0, False),
    ],
)
def test_two_epochs_on_the_loss_of_a_collapsed_encoder_are_warned_of(
    losses, num_warmup_epochs, has_collapsed, caplog
):
    with caplog.at_level(logging.WARNING):
        assert warn_of_collapse(history(*losses), num_warmup_epochs) is has_collapsed
    text = "its value when every image has the same projection: the encoder has collapsed"
    assert (text in caplog.text) is has_collapsed
    assert ("--params stage1.optimizer.lr=0.01," in caplog.text) is has_collapsed


@pytest.mark.parametrize(
    ("losses", "room", "has_collapsed"),
    [
        # 2 % of how far it can fall is the bound where that is less than 0.5 % of 4.
        ([3.99, 3.99], 2.0, True),
        ([3.99, 3.99], 0.15, False),
        ([3.998, 4.002], 0.15, True),
        ([4.0, 3.996], 0.15, False),
        ([4.0, 4.0], 0.0, False),
    ],
)
def test_a_loss_that_has_not_far_to_fall_is_stuck_only_where_it_has_not_moved(losses, room, has_collapsed):
    assert warn_of_collapse(history(*losses), 0, room=room) is has_collapsed


def test_the_start_of_a_training_has_no_loss_and_no_rate_and_counts_as_no_epoch():
    start = {"epoch": 0, "loss": None, "lr": None, "collapse_loss": None}
    assert not warn_of_collapse([start, *history(4.0, 4.0)], 1)
    assert warn_of_collapse([start, *history(4.0, 4.0)], 0)


def test_the_start_of_a_training_is_shown_by_its_metrics(lines):
    log = ScalarList()
    show(build_monitor(log, 10), [EpochRecord(0, None, None, None, {"score": 0.5}, {})])
    assert lines() == ["stage: epoch 0/2, score 0.5000"]
    assert [(tag, value) for tag, value, _ in log] == [("epoch/score", 0.5)]


def test_a_training_without_such_a_loss_is_not_warned_of():
    assert not warn_of_collapse(history(4.0, 4.0, collapse_loss=None), 0)
    mixed = [*history(4.0, collapse_loss=None), *history(4.0)]
    assert not warn_of_collapse(mixed, 0)
