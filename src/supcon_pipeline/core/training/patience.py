"""Whether what waits for validations without improvement can happen before a training ends."""

import itertools
import logging
from collections.abc import Callable

from supcon_pipeline.core.optim.options import SCHEDULES, complete_options
from supcon_pipeline.core.parameters.stages import TrainingParameters

logger = logging.getLogger(__name__)


def warn_of_patience(group: str, params: TrainingParameters, is_start_validated: bool = False) -> None:
    """Say so where a plateau never lowers the rate, or early stopping never stops: patience is too long.

    Args:
        group: what stands before the names of parameters.
        params: of the training.
        is_start_validated: whether there is a validation before the first epoch.
    """
    schedule, interval = params.schedule, params.validation_interval
    if schedule.name == "plateau":
        patience = complete_options(SCHEDULES, "plateau", {"patience": schedule.patience})["patience"]
        # Where time is limited, the warm-up may be over after any number of epochs.
        first = 0 if params.max_minutes else schedule.warmup_epochs

        # The first is an improvement, and it takes one more than are tolerated.
        def most_tolerated(num_epochs: int) -> int:
            return _count_validations(num_epochs, interval, first, is_start_validated) - 2

        _warn(group, "schedule", "the rate never falls", patience, 0, schedule.num_epochs, most_tolerated)
    if params.early_stopping is not None:

        def most_awaited(num_epochs: int) -> int:
            return _count_validations(num_epochs, interval, 0, is_start_validated) - 1

        sizes = params.early_stopping.patience, 1, schedule.num_epochs
        _warn(group, "early_stopping", "training never stops early", *sizes, most_awaited)


def _count_validations(num_epochs: int, interval: int, first_epoch: int, is_start_validated: bool) -> int:
    """The validations from the end of an epoch on, without the last, after which training ends anyway."""
    return sum(
        epoch % interval == 0 and (epoch > 0 or is_start_validated)
        for epoch in range(first_epoch, num_epochs)
    )


def _warn(
    group: str,
    part: str,
    consequence: str,
    patience: int,
    least: int,
    num_epochs: int,
    most: Callable[[int], int],
) -> None:
    longest = most(num_epochs)
    if patience <= longest:
        return
    enough = next(number for number in itertools.count(num_epochs) if most(number) >= patience)
    longer = f"{group}.schedule.num_epochs={enough}"
    logger.warning(
        "%s.%s.patience=%d changes nothing, as %s: too few validations come before the last; add --params %s",
        *(group, part, patience, consequence),
        f"{group}.{part}.patience={longest}" if longest >= least else longer,
    )
