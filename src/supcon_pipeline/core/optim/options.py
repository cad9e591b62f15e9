"""Options of optimizers and schedules, with their defaults."""

from collections.abc import Mapping
from typing import Any

from supcon_pipeline.core.messages import InputError, suggest

# Options by name with their defaults: those of the implementation, except for the momentum of SGD and LARS
# and Nesterov in SGD and Muon, which the implementations switch off and the papers use.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adam": {"betas": (0.9, 0.999)},
    "adamw": {"betas": (0.9, 0.999)},
    "radam": {"betas": (0.9, 0.999)},
    "lookahead": {"momentum": 0.9, "nesterov": True, "sync_period": 6, "slow_step_size": 0.5},
    "ranger": {"betas": (0.9, 0.999), "sync_period": 6, "slow_step_size": 0.5},
    "lars": {"momentum": 0.9, "nesterov": False},
    "muon": {"momentum": 0.95, "nesterov": True, "betas": (0.9, 0.95)},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {},
    "onecycle": {},
    "step": {"milestones": (0.5, 0.75), "decay_factor": 0.1},
    "plateau": {"decay_factor": 0.1, "patience": 5},
    "constant": {},
}


def complete_options(
    table: Mapping[str, Mapping[str, Any]], name: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of one name: the given values, and the default for what is missing or None.

    Args:
        table: default options by name, `OPTIMIZERS` or `SCHEDULES`.
        name: one of the table.
        given: any of the table's options; None for the default.

    Raises:
        InputError: if the name is not in the table or does not use a given option.
    """
    if name not in table:
        raise InputError(f"name must be a known one, got {name!r}; {suggest(name, table)}")
    for option, value in given.items():
        if value is not None and option not in table[name]:
            users = ", ".join(other for other, options in table.items() if option in options)
            raise InputError(f"{option} must be null with {name}, got {value}; it is used by {users}")
    chosen = {option: value for option, value in given.items() if value is not None}
    return {**table[name], **chosen}
