import logging

import numpy as np
import pytest
from tests.core.training.trainings import stage1_parameters

from supcon_pipeline.core.optim.schedules import Plateau
from supcon_pipeline.core.training.checkpoints import should_stop
from supcon_pipeline.core.training.patience import warn_of_patience


def warnings_of(caplog, is_start_validated=False, **changes):
    caplog.clear()
    params = stage1_parameters(**changes)
    with caplog.at_level(logging.WARNING):
        warn_of_patience("stage1", params, is_start_validated)
    return caplog.messages


def validated_epochs(num_epochs, interval, is_start_validated):
    epochs = [epoch for epoch in range(1, num_epochs + 1) if epoch % interval == 0 or epoch == num_epochs]
    return [0] * is_start_validated + epochs


@pytest.mark.parametrize("is_start_validated", [False, True])
@pytest.mark.parametrize("interval", [1, 2, 5])
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_a_plateau_that_never_falls_is_named_and_the_remedy_lets_it_fall(
    caplog, warmup_epochs, interval, is_start_validated
):
    for num_epochs, patience in np.ndindex(9, 6):
        num_epochs += 1 + warmup_epochs
        schedule = {"name": "plateau", "num_epochs": num_epochs, "warmup_epochs": warmup_epochs}
        changes = {"schedule": schedule | {"patience": patience}, "validation_interval": interval}

        def falls(num_epochs, patience):
            plateau = Plateau(0.1, patience)
            for epoch in validated_epochs(num_epochs, interval, is_start_validated):
                if warmup_epochs <= epoch < num_epochs:
                    plateau.observe(-epoch)
            return plateau.factor < 1

        found = warnings_of(caplog, is_start_validated, **changes)
        assert bool(found) != falls(num_epochs, patience)
        for message in found:
            name, _, value = message.partition("--params stage1.schedule.")[2].partition("=")
            given = {"num_epochs": num_epochs, "patience": patience, name: int(value)}
            assert falls(**given)


@pytest.mark.parametrize("is_start_validated", [False, True])
@pytest.mark.parametrize("interval", [1, 2, 5])
def test_early_stopping_that_never_stops_is_named_and_the_remedy_lets_it_stop(
    caplog, interval, is_start_validated
):
    for num_epochs, patience in np.ndindex(9, 6):
        num_epochs, patience = num_epochs + 1, patience + 1
        schedule = {"name": "cosine", "num_epochs": num_epochs, "warmup_epochs": 0}
        changes = {"schedule": schedule, "validation_interval": interval}

        def stops(num_epochs, patience):
            epochs = validated_epochs(num_epochs, interval, is_start_validated)[:-1]
            return should_stop([{"accuracy": -epoch} for epoch in epochs], "accuracy", patience)

        found = warnings_of(caplog, is_start_validated, early_stopping={"patience": patience}, **changes)
        assert bool(found) != stops(num_epochs, patience)
        for message in found:
            name, _, value = message.rpartition(".")[2].partition("=")
            assert stops(**{"num_epochs": num_epochs, "patience": patience, name: int(value)})


def test_the_patience_of_a_plateau_is_the_default_where_none_is_given(caplog):
    schedule = {"name": "plateau", "num_epochs": 20, "warmup_epochs": 1}
    (message,) = warnings_of(caplog, True, schedule=schedule, validation_interval=4)
    assert message == (
        "stage1.schedule.patience=5 changes nothing, as the rate never falls: too few validations come "
        "before the last; add --params stage1.schedule.patience=2"
    )


def test_a_warm_up_that_limited_time_may_shorten_is_not_counted(caplog):
    schedule = {"name": "plateau", "num_epochs": 20, "warmup_epochs": 18}
    assert len(warnings_of(caplog, schedule=schedule)) == 1
    assert warnings_of(caplog, schedule=schedule, max_minutes=1) == []


def test_nothing_is_said_of_other_schedules(caplog):
    assert warnings_of(caplog) == []
