"""The values that a sweep searches: ranges of numbers, and choices."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from math import prod
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import Parameters

Choice = bool | int | float | str | None
# Combinations of values that are tried on the typed parameters before anything runs.
_MAX_TRIED = 1000
# Digits after the point to which a step is exact.
_DIGITS = 9


class Range(Parameters):
    """The numbers from `low` to `high`, both included.

    Args:
        log: whether each order of magnitude is as likely as another.
        step: distance of the numbers; None for all of them, or for whole numbers 1.
    """

    low: Annotated[float, Field(strict=True)]
    high: Annotated[float, Field(strict=True)]
    log: bool = False
    step: Annotated[float, Field(gt=0, strict=True)] | None = None

    @model_validator(mode="after")
    def _is_ascending(self) -> Self:
        if self.high <= self.low:
            raise InputError(f"high must be above low ({self.low:g}), got {self.high:g}; exchange the two")
        if self.log and self.low <= 0:
            raise InputError(f"low must be above 0 with log, got {self.low:g}; raise it, or leave log out")
        if self.log and self.step is not None:
            raise InputError(f"step must be left out with log, got {self.step:g}; leave one of them out")
        if self.step is not None:
            count = (self.high - self.low) / self.step
            if round(count, _DIGITS) != round(count) or not round(count):
                raise InputError(
                    f"step must lead from low ({self.low:g}) to high ({self.high:g}), got {self.step:g}; "
                    "change one of them"
                )
        return self


Values = Range | list[Choice]


class Space:
    """The searched parameters, with their types.

    Args:
        search: range or choices by name.
        whole: the names of those that take whole numbers alone.
    """

    def __init__(self, search: Mapping[str, Values], whole: set[str]):
        self.search, self.whole = search, whole

    def suggest(self, trial: Any) -> dict[str, Choice]:
        """The values of an Optuna trial, drawn where it has none yet."""
        return {name: self._suggest(trial, name, values) for name, values in self.search.items()}

    def _suggest(self, trial: Any, name: str, values: Values) -> Choice:
        chosen: Choice
        if isinstance(values, list):
            chosen = trial.suggest_categorical(name, values)
        elif name in self.whole:
            step, ends = int(values.step or 1), (int(values.low), int(values.high))
            chosen = trial.suggest_int(name, *ends, step=step, log=values.log)
        else:
            chosen = trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)
        return chosen

    def grid(self) -> list[dict[str, Choice]]:
        """Every combination."""
        axes = [self._all(name, values) for name, values in self.search.items()]
        return [dict(zip(self.search, values, strict=True)) for values in product(*axes)]

    def _all(self, name: str, values: Values) -> Sequence[Choice]:
        if isinstance(values, list):
            return values
        step = values.step or 1
        count = round((values.high - values.low) / step) + 1
        numbers = [round(values.low + step * index, _DIGITS) for index in range(count)]
        return [int(number) for number in numbers] if name in self.whole else numbers

    def corners(self) -> Iterator[dict[str, Choice]]:
        """Combinations of ends of ranges and choices: all, or of very many each value and some others."""
        axes = [self._ends(name, values) for name, values in self.search.items()]
        if prod(map(len, axes)) <= _MAX_TRIED:
            combinations: Iterator[tuple[Choice, ...]] = product(*axes)
        else:
            combinations = islice(_drawn(axes), _MAX_TRIED)
        return (dict(zip(self.search, values, strict=True)) for values in combinations)

    def _ends(self, name: str, values: Values) -> list[Choice]:
        if isinstance(values, list):
            return values
        kind = int if name in self.whole else float
        return [kind(values.low), kind(values.high)]

    def describe(self) -> Iterator[tuple[str, str]]:
        """Each name with its values in words."""
        for name, values in self.search.items():
            if isinstance(values, list):
                yield name, ", ".join(map(word, values))
            else:
                step = f" in steps of {values.step:g}" if values.step else ""
                yield name, f"{values.low:g} to {values.high:g}{step}{', log' if values.log else ''}"


def _drawn(axes: Sequence[Sequence[Choice]]) -> Iterator[tuple[Choice, ...]]:
    """Combinations without end, in the first of which each value comes up."""
    draw = random.Random(0)
    longest = max(map(len, axes))
    for index in range(longest):
        yield tuple(axis[index % len(axis)] for axis in axes)
    while True:
        yield tuple(draw.choice(axis) for axis in axes)


def in_short(values: Mapping[str, Choice]) -> str:
    """Values by name in a line, numbers with four digits."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={word(value)}"
        for name, value in values.items()
    )


def word(value: Choice) -> str:
    """A value as a file of parameters has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
