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
    """The optimizer.

    One flat group for all optimizers, where an option that is null or left out has its default: runtime
    parameters are merged over the YAML files key by key, and `--params stage1.optimizer.name=adamw` has to be
    enough. An option that the optimizer does not have is refused, so that none is silently without effect.
    The defaults are those of `core.optim.options.OPTIMIZERS`.

    Args:
        name: the optimizer; `lookahead` wraps SGD, `ranger` is Lookahead around RAdam.
        lr: peak learning rate.
        weight_decay: for weights only; biases and norms are not decayed.
        momentum: for `sgd`, `lookahead`, `lars` and `muon`.
        nesterov: for the same.
        betas: for `adam`, `adamw`, `radam`, `ranger` and, for parameters that are not matrices, `muon`.
        sync_period: fast steps per slow step; for `lookahead` and `ranger`.
        slow_step_size: fraction of the way to the fast weights that a slow step takes; for the same.
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
            raise InputError("momentum must be above 0 with nesterov, got 0.0; set nesterov=false")
        return self


class ScheduleParameters(Parameters):
    """The learning-rate schedule: linear warm-up, then a shape; nulls as in `OptimizerParameters`.

    Args:
        name: the shape; `plateau` follows the metric that chooses the checkpoints.
        num_epochs: length of the training.
        warmup_epochs: the first of these epochs, in which the learning rate rises.
        milestones: fractions of the training at which the rate drops; for `step`.
        decay_factor: what the rate is multiplied by when it drops; for `step` and `plateau`.
        patience: validations in a row without improvement before the rate drops; for `plateau`.
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


class LoraParameters(Parameters):
    """Updates of low rank that are trained in place of the weights of linear layers.

    Args:
        rank: of each update.
        alpha: strength: `alpha / rank` stands in front of an update.
        dropout: probability that an input is left out of an update in a training step.
    """

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Decay = 0.0


class FinetuneParameters(Parameters):
    """How an encoder that starts from weights is trained further.

    Args:
        layer_decay: factor of the learning rate from one layer to the one before it; 1 for one rate.
        head_lr_factor: factor from the learning rate of the last layer to that of the heads.
        freeze_epochs: the first epochs, in which only the heads are trained.
        freeze_batch_norm: whether batch-norm in the backbone keeps its running statistics and uses them.
        drop_path: probability that the last residual branch is left out, rising to it from 0 in the first;
            None for what the network has.
        start_images: how many training images the weights that it starts from count for in the encoder that
            is validated and kept; 0 keeps nothing of them.
        start_classes: the same in classes of train, where validation and test hold classes that train lacks:
            what helps with those comes from the number of classes, whatever that of their images.
        lora: what of the backbone is trained in place of its weights; None trains the weights.
    """

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    head_lr_factor: Annotated[float, Field(gt=0)] = 1.0
    freeze_epochs: Annotated[int, Field(ge=0)] = 0
    freeze_batch_norm: bool = False
    drop_path: Decay | None = None
    start_images: Annotated[int, Field(ge=0)] = 0
    start_classes: Annotated[int, Field(ge=0)] = 0
    lora: LoraParameters | None = None

    def start_share(self, num_images: int, num_classes: int, has_unseen_classes: bool) -> float:
        """The share of the start in what is kept of a training, from 0 to below 1.

        Args:
            num_images: that are trained on.
            num_classes: of these images.
            has_unseen_classes: whether validation and test hold classes that train lacks.
        """
        if has_unseen_classes:
            return self.start_classes / (self.start_classes + num_classes)
        return self.start_images / (self.start_images + num_images)


class EmaParameters(Parameters):
    """The exponential moving average of the weights.

    Args:
        decay_per_epoch: weight of the old average after one epoch.
        is_raw_validated: whether the weights that are not averaged are validated as well.
    """

    decay_per_epoch: Fraction
    is_raw_validated: bool = False
