"""Objects as bytes for another process, models with parametrized weights among them."""

import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize


class _Pickler(pickle.Pickler):
    """A pickler that takes modules whose weights are parametrized, which torch's own refuses.

    Not the pickler of torch for other processes: it shares memory, so that all would train the same weights.
    """

    def reducer_override(self, value: Any) -> Any:
        """How a parametrized module is made again; all else as usual."""
        if not (isinstance(value, nn.Module) and parametrize.is_parametrized(value)):
            return NotImplemented
        lists: Mapping[str, Any] = dict(value.parametrizations.items())  # type: ignore[union-attr, operator]
        state = dict(value.__dict__)
        state["_modules"] = {
            name: part for name, part in value._modules.items() if name != "parametrizations"
        }
        originals = {name: updates.original for name, updates in lists.items()}
        state["_parameters"] = {**value._parameters, **originals}
        kind = parametrize.type_before_parametrizations(value)
        return _restore, (kind, state, {name: list(updates) for name, updates in lists.items()})


def _restore(
    kind: type[nn.Module], state: dict[str, Any], updates: Mapping[str, Sequence[nn.Module]]
) -> nn.Module:
    module = kind.__new__(kind)
    module.__setstate__(state)
    for name, parts in updates.items():
        for part in parts:
            parametrize.register_parametrization(module, name, part)
    return module


def to_bytes(value: Any) -> bytes:
    """An object as bytes, which `from_bytes` makes again."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


def from_bytes(packed: bytes) -> Any:
    """What was given to `to_bytes`.

    Making it again runs code that the bytes name. They must come from this process, from one that it has
    started, or from one of the same user on the first of several hosts, by an argument or in a folder that no
    other user can enter; never from an artifact or a network. Where a network names the folder, see
    `hosts.require_own`.
    """
    return pickle.loads(packed)
