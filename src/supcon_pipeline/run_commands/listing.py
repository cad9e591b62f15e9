"""Lists of runs: which, in which order, and what is said of each."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.messages import suggest
from supcon_pipeline.core.pages.headlines import HEADLINES
from supcon_pipeline.run_commands.books import Summary

# In the table, which has to fit a terminal; `--json` has all.
_SHOWN = ("embedding.precision_at_1", "embedding.mean_average_precision_at_r", "classifier.accuracy")
_LOWER_IS_BETTER = ("log_loss", "expected_calibration_error", "brier_score")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda value, wanted: value == wanted,
    "!=": lambda value, wanted: value != wanted,
    "<": lambda value, wanted: value < wanted,
    "<=": lambda value, wanted: value <= wanted,
    ">": lambda value, wanted: value > wanted,
    ">=": lambda value, wanted: value >= wanted,
}


def keep(runs: Sequence[Summary], conditions: Iterable[str]) -> list[Summary]:
    """The runs that meet all conditions, such as `outcome=failed` or `classifier.accuracy>0.9`.

    Raises:
        CommandError: where a condition cannot be read, or names what no run has.
    """
    kept = list(runs)
    for condition in conditions:
        found = re.fullmatch(r"\s*([\w.]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", condition)
        if not found:
            raise CommandError(
                f"--filter must be a name, one of {' '.join(_OPERATORS)} and a value, got '{condition}'; "
                "for example --filter outcome=completed"
            )
        name, operator, wanted = found.groups()
        _require_known("--filter", name, runs)
        kept = [run for run in kept if _meets(name, run.fields().get(name), operator, wanted)]
    return kept


def _meets(name: str, value: Any, operator: str, wanted: str) -> bool:
    compare = _OPERATORS[operator]
    if value is None:
        return operator == ("=" if wanted in ("", "null") else "!=")
    if name == "when":
        # The day of a time is enough.
        moment = _typed_time(wanted)
        return compare(_full_time(datetime.fromisoformat(value))[: len(moment)], moment)
    if name == "id" and operator in ("=", "!="):
        # The beginning of an id, too.
        return str(value).startswith(wanted) == (operator == "=")
    if isinstance(value, bool):
        return compare(json.dumps(value), wanted.lower())
    if isinstance(value, int | float):
        is_clock = name == "duration" and ":" in wanted
        number = _seconds(wanted) if is_clock else _number(wanted)
        if number is not None:
            return compare(round(value) if is_clock else value, number)
        if operator not in ("=", "!="):
            example = "0:05:00" if name == "duration" else "0.5"
            raise CommandError(
                f"--filter must compare {name} with a number, got '{wanted}'; "
                f"for example --filter '{name}{operator}{example}'"
            )
        return operator == "!="
    return compare(value if isinstance(value, str) else json.dumps(value), wanted)


def _number(wanted: str) -> float | None:
    try:
        return float(wanted)
    except ValueError:
        return None


def _seconds(wanted: str) -> float | None:
    """Of hours, minutes and seconds, as the list shows them; none where it is no such time."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d)", wanted)
    if not found:
        return None
    hours, minutes, seconds = map(int, found.groups())
    return 3600 * hours + 60 * minutes + seconds


def _typed_time(wanted: str) -> str:
    """A time as `_full_time` words it, as far as it was typed.

    Raises:
        CommandError: where it is none.
    """
    try:
        moment = datetime.fromisoformat(wanted)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is not None:
        return _full_time(moment)
    text = wanted.replace("T", " ")
    if not re.fullmatch(r"\d{4}(-\d\d(-\d\d( \d\d(:\d\d(:\d\d(\.\d+)?)?)?)?)?)?", text):
        raise CommandError(
            f"--filter must compare when with a time, got '{wanted}'; "
            "for example --filter 'when>=2026-03-01 14:30'"
        )
    return text


def _full_time(moment: datetime) -> str:
    """A time as the clock on the wall showed it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")


def order(runs: Sequence[Summary], name: str, is_reversed: bool) -> list[Summary]:
    """The runs by a field: the newest, the best metric or the largest number first; those without it last.

    Args:
        runs: the newest first.
        name: of the field.
        is_reversed: whether the order is the other way round.

    Raises:
        CommandError: where no run has the field.
    """
    _require_known("--sort", name, runs)
    present = [run for run in runs if run.fields().get(name) is not None]
    absent = [run for run in runs if run.fields().get(name) is None]
    if name != "when":
        values = [run.fields()[name] for run in present]
        is_number = all(isinstance(value, int | float) for value in values)
        is_descending = is_number and not name.endswith(_LOWER_IS_BETTER)
        present.sort(
            key=lambda run: run.fields()[name] if is_number else str(run.fields()[name]),
            reverse=is_descending,
        )
    return [*(reversed(present) if is_reversed else present), *absent]


def _require_known(option: str, name: str, runs: Sequence[Summary]) -> None:
    known = {known: None for run in runs for known in run.fields()}
    if runs and name not in known:
        own = ("id", "when", "experiment", "outcome", "duration")
        remedy = suggest(name, [*own, *(other for other in known if other not in own)])
        raise CommandError(f"{option} must name a field, metric or parameter, got '{name}'; {remedy}")


def describe(run: Summary) -> dict[str, Any]:
    """A run as plain JSON, with all headline metrics."""
    record, fields = run.record, run.fields()
    names = [f"{headline.group}.{headline.metric}" for headline in HEADLINES]
    return {
        "id": run.run_id,
        "experiment": record["experiment"],
        "when": record["started"],
        "outcome": record["outcome"],
        "duration": run.seconds,
        "metrics": {name: fields[name] for name in names if name in fields},
        "commit": record["commit"],
        "base": record["base"],
    }


def tabulate(runs: Sequence[Summary]) -> Table:
    """A row for each run."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "when", "experiment", "outcome"):
        table.add_column(column, no_wrap=True)
    shorts = {f"{headline.group}.{headline.metric}": headline.short for headline in HEADLINES}
    for column in (*(shorts[name] for name in _SHOWN), "duration"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        fields = run.fields()
        metrics = ["" if fields.get(name) is None else f"{fields[name]:.4f}" for name in _SHOWN]
        when = local_time(run.record["started"])
        words = [run.run_id, when, run.record["experiment"], run.record["outcome"]]
        table.add_row(*map(Text, [*words, *metrics, duration(run.seconds)]))
    return table


def local_time(moment: str) -> str:
    """A time in UTC as the clock on the wall showed it, to the minute."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds; nothing where it is not known."""
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
