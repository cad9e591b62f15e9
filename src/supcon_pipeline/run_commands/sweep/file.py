"""The file that declares a search of parameters, checked before anything runs."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omegaconf import OmegaConf
from pydantic import BaseModel, Field

from supcon_pipeline.commands import CommandError, is_sayable, leaves
from supcon_pipeline.core.messages import show
from supcon_pipeline.core.parameters.base import Count, Parameters
from supcon_pipeline.run_commands.sweep.space import Range, Values
from supcon_pipeline.run_ids import require_run_id
from supcon_pipeline.validation import validate_parameters


class SweepFile(Parameters):
    """What a sweep searches, and how.

    Args:
        metric: `<stage>.<metric>`: a validation metric in the history of `stage1`, `stage2` or `baseline`.
        search: range or choices by dotted name of the parameter.
        fixed: the other parameters that differ from the files, by dotted name.
        trials: how many combinations are tried; None with `grid`, which tries all.
        repeats: seeds of each trial; their mean counts.
        final_seeds: fresh seeds on which the best combination is trained and evaluated at the end.
        sampler: `tpe` learns from earlier trials, `random` does not, `grid` tries every combination.
        prune: whether a trial whose curve is below the median of the others is stopped.
        pipelines: what a trial runs; None for what the metric needs.
    """

    metric: str
    search: Annotated[dict[str, Any], Field(min_length=1)]
    fixed: dict[str, Any] = Field(default_factory=dict)
    trials: Count | None = None
    repeats: Count = 1
    final_seeds: Count = 3
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    prune: bool = True
    pipelines: list[str] | None = None

    @property
    def stage(self) -> str:
        """The training whose history has the metric."""
        return self.metric.partition(".")[0]

    @property
    def column(self) -> str:
        """The column of that history."""
        return self.metric.partition(".")[2]


def read_sweep(path: Path) -> SweepFile:
    """The sweep that a file declares.

    Raises:
        CommandError: where the file cannot be read or declares something else, with one line per mistake.
    """
    if not path.is_file():
        raise CommandError(f"file must declare a sweep, got {path}, which is no file; see docs/runs.md")
    require_run_id("name of the file", path.stem)
    content = _read_mapping(path)
    for name in ("metric", "search"):
        if name not in content:
            raise CommandError(f"{path} must have {name}, got none; see Search parameters in docs/runs.md")
    content["fixed"] = dict(leaves(content.get("fixed") or {}))
    _validate("sweep", content, SweepFile)
    sweep = SweepFile.model_validate(content)
    _require_trials(sweep)
    ranges = {name: _read_values(name, values) for name, values in sweep.search.items()}
    for name, value in sweep.fixed.items():
        _require_single("fixed", name, value)
    return sweep.model_copy(update={"search": ranges})


def _read_mapping(path: Path) -> dict[str, Any]:
    """What a file holds, with numbers such as 1e-4 as in files of parameters."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"{path} must be a YAML file of a sweep, got: {reason}; correct it") from error
    if not isinstance(content, dict):
        raise CommandError(f"{path} must be a mapping, got {show(content)}; see docs/runs.md")
    return {str(name): value for name, value in content.items()}


def _validate(name: str, value: Any, model: type[BaseModel]) -> None:
    """Check a part of the file as parameters are checked.

    Raises:
        CommandError: with one line per mistake.
    """
    try:
        validate_parameters({name: value}, {name: model})
    except CommandError as error:
        raise CommandError(error.message.replace("sweep.", "")) from None


def _require_trials(sweep: SweepFile) -> None:
    if sweep.sampler == "grid" and sweep.trials is not None:
        raise CommandError(
            f"trials must be left out with sampler grid, which tries everything, got {sweep.trials}; "
            "leave it out, or write sampler: random"
        )
    if sweep.sampler != "grid" and sweep.trials is None:
        raise CommandError(f"trials must be given with sampler {sweep.sampler}, got none; write trials: 20")


def _read_values(name: str, values: Any) -> Values:
    if isinstance(values, dict):
        absent = [end for end in ("low", "high") if end not in values]
        if absent:
            raise CommandError(f"search.{name} must have {absent[0]}, got {show(values)}; add it")
        _validate(name, values, Range)
        return Range.model_validate(values)
    if not isinstance(values, list) or not values:
        raise CommandError(
            f"search.{name} must be a range such as {{low: 0.1, high: 1}} or a list of choices, "
            f"got {show(values)}; correct it"
        )
    for position, value in enumerate(values):
        _require_single("search", name, value)
        if any(value == other and type(value) is type(other) for other in values[:position]):
            raise CommandError(
                f"search.{name} must have each choice once, got {value!r} twice; leave one out"
            )
    return values


def _require_single(part: str, name: str, value: Any) -> None:
    if isinstance(value, dict) or not is_sayable(name, value):
        raise CommandError(
            f"{part}.{name} must have single values without commas, as --params takes them, "
            f"got {show(value)}; name the parameters in it, or change the files"
        )
