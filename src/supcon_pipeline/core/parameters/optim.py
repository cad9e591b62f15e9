"""Parameters of optimizers, schedules and averages."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Count,
    Decay,
    Fraction,
    Parameters,
)


class OptimizerParameters(Parameters):
    """How weights follow their gradients.

    One flat table and not one per optimizer, where an option that is null or left out has its usual value:
    runtime parameters are merged over the YAML files key by key, and `--params stage1.optimizer.name=adamw`
    must be enough. An option that the optimizer does not use is refused, so that none is without effect. The
    usual values are those of `core.optim.options.OPTIMIZERS`.

    Args:
        name: of the optimizer; `lookahead` goes around SGD, `ranger` is Lookahead around RAdam.
        lr: peak learning rate.
        weight_decay: of weights; biases and norms have none.
        momentum: used by `sgd`, `lookahead`, `lars` and `muon`.
        nesterov: used by the same.
        betas: used by `adam`, `adamw`, `radam`, `ranger` and, for what is no matrix, `muon`.
        sync_period: fast steps to one slow step; used by `lookahead` and `ranger`.
        slow_step_size: of a slow step, as a share of the way; used by the same.
    """

    name: Literal["sgd", "adam", "adamw", "radam", "lookahead", "ranger", "lars", "muon"]
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    momentum: Decay | None = None
    nesterov: bool | None = None
    betas: tuple[Decay, Decay] | None = None
    sync_period: Count | None = None
    slow_step_size: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _uses_its_options(self) -> Self:
        from supcon_pipeline.core.optim.options import OPTIMIZERS, complete_options

        given = self.model_dump(exclude={"name", "lr", "weight_decay"})
        options = complete_options(OPTIMIZERS, self.name, given)
        if options.get("nesterov") and not options["momentum"]:
            raise InputError("momentum must be above 0 with nesterov, got 0.0; set nesterov to false")
        return self


class ScheduleParameters(Parameters):
    """Linear warm-up, then the shape of a name; flat and with nulls, as `OptimizerParameters` is and why.

    Args:
        name: of the shape; `plateau` follows the metric that chooses the checkpoints.
        num_epochs: of the training.
        warmup_epochs: of these with rising learning rate.
        milestones: shares of the training at which the rate falls; used by `step`.
        decay_factor: what it is multiplied by; used by `step` and `plateau`.
        patience: validations in a row without improvement that are borne; used by `plateau`.
    """

    name: Literal["cosine", "onecycle", "step", "plateau", "constant"]
    num_epochs: Count
    warmup_epochs: Annotated[int, Field(ge=0)]
    milestones: tuple[Fraction, ...] | None = None
    decay_factor: Fraction | None = None
    patience: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _uses_its_options(self) -> Self:
        from supcon_pipeline.core.optim.options import SCHEDULES, complete_options
        from supcon_pipeline.core.optim.schedules import check_schedule

        given = self.model_dump(exclude={"name", "num_epochs", "warmup_epochs"})
        options = complete_options(SCHEDULES, self.name, given)
        check_schedule(self.name, self.num_epochs, self.warmup_epochs, options.get("milestones"))
        return self


class EmaParameters(Parameters):
    """The moving average of the weights."""

    decay_per_epoch: Fraction
    is_raw_validated: bool = False
