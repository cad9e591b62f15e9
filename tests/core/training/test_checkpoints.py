import json

import numpy as np
import pytest
import torch

from supcon_pipeline.core.metrics.direction import score
from supcon_pipeline.core.optim.schedules import Plateau
from supcon_pipeline.core.training.checkpoints import TopCheckpoints, should_stop
from supcon_pipeline.core.training.state import EpochRecord


def epoch_record(epoch, value, **others):
    metrics = {"score": value, **others}
    return EpochRecord(epoch, epoch / 2, epoch / 10, None, metrics, {"w": torch.tensor(epoch)})


def kept(scores, top_k, metric="score"):
    top = TopCheckpoints(metric, top_k, {})
    for epoch, value in enumerate(scores, start=1):
        top.offer(epoch_record(epoch, value, log_loss=value))
    return top.checkpoints


def kept_epochs(scores, top_k, metric="score"):
    return [checkpoint.metadata["epoch"] for checkpoint in kept(scores, top_k, metric)]


@pytest.mark.parametrize(
    ("scores", "top_k", "epochs"),
    [
        ([0.1, 0.4, 0.2, 0.3], 2, [2, 4]),
        ([0.1, 0.4, 0.2, 0.3], 1, [2]),
        ([0.1, 0.4], 5, [2, 1]),
        ([0.2, 0.2, 0.3, 0.2, 0.3], 3, [5, 3, 4]),
        ([-0.1, -0.3, 0.0], 2, [3, 1]),
    ],
)
def test_the_best_epochs_are_kept_best_first_and_a_later_one_wins_a_draw(scores, top_k, epochs):
    assert kept_epochs(scores, top_k) == epochs


@pytest.mark.parametrize(
    ("scores", "epochs"),
    [
        ([0.5], [0]),
        ([0.5, 0.4, 0.3], [0]),
        ([0.5, 0.4, 0.6, 0.3, 0.7, 0.4], [4, 2]),
        ([0.5, 0.6, 0.7, 0.8], [3, 2]),
        # A tie is no worse.
        ([0.5, 0.4, 0.5], [2]),
    ],
)
def test_no_epoch_below_the_start_is_kept_and_the_start_only_where_none_is_better(scores, epochs):
    top = TopCheckpoints("score", 2, {})
    for epoch, value in enumerate(scores):
        top.offer(epoch_record(epoch, value))
    again = TopCheckpoints("score", 2, {})
    again.load_state_dict(top.state_dict())
    assert [[part.metadata["epoch"] for part in each.checkpoints] for each in (top, again)] == [epochs] * 2


def test_the_start_is_remembered_by_a_training_that_goes_on():
    first, second = TopCheckpoints("score", 2, {}), TopCheckpoints("score", 2, {})
    first.offer(epoch_record(0, 0.5))
    first.offer(epoch_record(1, 0.6))
    second.load_state_dict(first.state_dict())
    second.offer(epoch_record(2, 0.4))
    assert [part.metadata["epoch"] for part in second.checkpoints] == [1]


def test_the_lowest_log_loss_is_the_best():
    assert kept_epochs([0.3, 0.1, 0.4, 0.1, 0.2], 3, metric="log_loss") == [4, 2, 5]


@pytest.mark.parametrize(("metric", "sign"), [("score", 1), ("log_loss", -1)])
def test_the_kept_epochs_are_those_of_sorting_all(rng, metric, sign):
    scores = rng.integers(0, 6, 40) / 8
    epochs = sorted(range(1, 41), key=lambda epoch: (-sign * scores[epoch - 1], -epoch))
    assert kept_epochs(scores, 7, metric) == epochs[:7]


def test_every_checkpoint_has_the_weights_of_its_epoch():
    assert [part.tensors["w"].item() for part in kept([0.1, 0.4, 0.2, 0.3], 3)] == [2, 4, 3]


def test_a_checkpoint_says_its_epoch_its_metrics_and_where_it_comes_from():
    top = TopCheckpoints("score", 1, {"run_id": "r1"})
    top.offer(epoch_record(3, 0.5, other=0.25))
    (checkpoint,) = top.checkpoints
    assert checkpoint.metadata == {"run_id": "r1", "epoch": 3, "metrics": {"score": 0.5, "other": 0.25}}
    assert checkpoint.tensors == {"w": torch.tensor(3)}


def test_a_metric_that_is_not_measured_is_refused():
    message = r"checkpoints\.metric must be one that is measured, got 'scores'; did you mean 'score'"
    with pytest.raises(ValueError, match=message):
        TopCheckpoints("scores", 1, {}).offer(epoch_record(1, 0.5, other=0.1))


def test_the_best_go_on_from_their_state_as_if_nothing_had_been(rng):
    records = [epoch_record(epoch, score) for epoch, score in enumerate(rng.integers(0, 6, 20) / 8, start=1)]
    whole, first, second = (TopCheckpoints("score", 4, {"run_id": run}) for run in ("b", "a", "b"))
    for record in records:
        whole.offer(record)
    for record in records[:9]:
        first.offer(record)
    second.load_state_dict(first.state_dict())
    for record in records[9:]:
        second.offer(record)
    # The run is the one that ended the training.
    assert [part.metadata for part in second.checkpoints] == [part.metadata for part in whole.checkpoints]
    assert [part.tensors for part in second.checkpoints] == [part.tensors for part in whole.checkpoints]
    assert json.dumps([part["metadata"] for part in first.state_dict()])


@pytest.mark.parametrize(
    ("scores", "patience", "is_over"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.4], 1, True),
        ([0.5, 0.4], 2, False),
        ([0.5, 0.4, 0.3], 2, True),
        # A draw is no rise, a late rise is one.
        ([0.5, 0.5, 0.5], 2, True),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.4, 0.6, 0.5, 0.6], 2, True),
        ([0.1, 0.9, 0.2, 0.3, 0.4], 4, False),
        ([0.5, 0.4, 0.3, 0.2], None, False),
    ],
)
def test_training_stops_once_the_best_is_as_old_as_the_patience(scores, patience, is_over):
    assert should_stop([{"score": score} for score in scores], "score", patience) is is_over
    falling = [{"log_loss": -score} for score in scores]
    assert should_stop(falling, "log_loss", patience) is is_over


NAN = float("nan")


@pytest.mark.parametrize("metric", ["score", "log_loss"])
def test_an_epoch_whose_metric_is_not_a_number_is_kept_only_where_there_is_no_better(metric):
    scores = [NAN, 0.5, 0.5]
    assert kept_epochs(scores, 1, metric) == [3]
    assert kept_epochs(scores[::-1], 2, metric) == [2, 1]
    assert kept_epochs(scores, 3, metric) == [3, 2, 1]
    assert kept_epochs([NAN, NAN], 1, metric) == [2]


@pytest.mark.parametrize("metric", ["score", "log_loss"])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_early_stopping_ends_where_a_plateau_begins_whatever_is_no_number(rng, metric, patience):
    for _ in range(50):
        rows = [{metric: value} for value in rng.choice([NAN, 0.1, 0.2, 0.3, 0.4], 8)]
        # A plateau bears as many epochs as its patience, and acts at the next one.
        plateau, has_reduced = Plateau(0.5, patience - 1), []
        for row in rows:
            plateau.observe(score(row, metric))
            has_reduced.append(plateau.factor < 1)
        has_ended = [should_stop(rows[: count + 1], metric, patience) for count in range(len(rows))]
        assert [*has_ended, True].index(True) == [*has_reduced, True].index(True)


def test_a_slow_loop_stops_at_the_same_epoch(rng):
    for _ in range(50):
        scores = rng.integers(0, 8, 12).tolist()
        best, bad_epochs, stops = -np.inf, 0, []
        for value in scores:
            bad_epochs = 0 if value > best else bad_epochs + 1
            best = max(best, value)
            stops.append(bad_epochs >= 3)
        rows = [{"score": value} for value in scores]
        assert [should_stop(rows[: count + 1], "score", 3) for count in range(12)] == stops
