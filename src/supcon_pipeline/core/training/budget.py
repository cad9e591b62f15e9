"""Whether two trainings had the same budget, so that their numbers may stand side by side."""

from collections.abc import Mapping
from typing import Any

# What two trainings must share; losses, optimizers and how the work is done on a machine are their own.
BUDGET = ("seed", "backbone", "transforms", "num_views", "mixing", "loader", "schedule", "early_stopping")
_HAS_NO_EFFECT = ("loader.num_workers",)


def budget_differences(parameters: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The dotted names of what differs in the budget of two trainings; none where it was the same.

    Args:
        parameters: of a training, as its checkpoints have them.
        others: of another.
    """
    names = []
    for name in BUDGET:
        value, other = parameters.get(name), others.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            keys = dict.fromkeys([*value, *other])
            names += [f"{name}.{key}" for key in keys if value.get(key) != other.get(key)]
        elif value != other:
            names.append(name)
    return [name for name in names if name not in _HAS_NO_EFFECT]
