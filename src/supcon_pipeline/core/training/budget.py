"""Whether two trainings had the same budget, so that their metrics can be compared."""

from collections.abc import Mapping
from typing import Any

# What two trainings must share; losses, optimizers and how the work runs on a machine may differ.
BUDGET = (
    *("seed", "backbone", "finetune", "transforms", "num_views", "mixing", "loader", "schedule"),
    *("early_stopping", "max_minutes", "embedding_dim", "unseen_embedding_dim", "view_size", "view_sizes"),
    *("center_crop", "mirror_average", "ema"),
)
_HAS_NO_EFFECT = ("loader.num_workers", "ema.is_raw_validated")


def budget_differences(parameters: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Dotted names of the parameters in which the budgets of two trainings differ; empty where they agree.

    Args:
        parameters: those of one training, as its checkpoints hold them.
        others: those of the other.
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
