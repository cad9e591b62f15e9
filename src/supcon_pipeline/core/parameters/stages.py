"""Parameters of the trainings."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Count,
    Parameters,
    Seed,
)
from supcon_pipeline.core.parameters.batches import (
    ContrastiveLoaderParameters,
    LoaderParameters,
    MixingParameters,
    Transforms,
)
from supcon_pipeline.core.parameters.checkpoints import (
    CheckpointParameters,
    ClassifierCheckpointParameters,
    ContrastiveCheckpointParameters,
    EarlyStoppingParameters,
)
from supcon_pipeline.core.parameters.losses import ContrastiveLossParameters
from supcon_pipeline.core.parameters.models import BackboneParameters, ProjectionParameters
from supcon_pipeline.core.parameters.optim import EmaParameters, OptimizerParameters, ScheduleParameters


class TrainingParameters(Parameters):
    """What every training has."""

    seed: Seed
    transforms: Transforms
    mixing: MixingParameters | None = None
    loader: LoaderParameters
    optimizer: OptimizerParameters
    schedule: ScheduleParameters
    ema: EmaParameters | None
    max_grad_norm: Annotated[float, Field(gt=0)] | None
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    compile: bool
    checkpoints: CheckpointParameters
    early_stopping: EarlyStoppingParameters | None
    validation_batch_size: Count
    validation_interval: Count
    progress_minutes: Annotated[float, Field(ge=0)] | None


class EncoderTraining(TrainingParameters):
    """What every training of an encoder has."""

    backbone: BackboneParameters
    num_views: Count
    micro_batch_size: Count | None


class Stage1Parameters(EncoderTraining):
    """Of `stage1`."""

    projection: ProjectionParameters
    loss: ContrastiveLossParameters
    loader: ContrastiveLoaderParameters
    checkpoints: ContrastiveCheckpointParameters

    @model_validator(mode="after")
    def _loss_takes_mixed_labels(self) -> Self:
        if self.mixing is not None and self.loss.name != "supcon":
            raise InputError(
                f"mixing must be null with {self.loss.name}, got {self.mixing.name}; of the losses, supcon "
                "takes class probabilities"
            )
        return self

    @model_validator(mode="after")
    def _anchors_have_positives(self) -> Self:
        if self.num_views == 1 and self.loss.name == "simclr":
            raise InputError(
                "num_views must be at least 2 with simclr, got 1; its positives are other views of an image"
            )
        if self.num_views == 1 and self.loader.images_per_class == 1:
            raise InputError(
                "images_per_class must be at least 2 with num_views 1, got 1; no image would have a positive"
            )
        return self


class SwaParameters(Parameters):
    """Of `swa`, in all its places."""

    batch_size: Annotated[int, Field(ge=2)]


class Stage2Parameters(TrainingParameters):
    """Of `stage2`."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    checkpoints: ClassifierCheckpointParameters


class BaselineParameters(Parameters):
    """Of `baseline`: what differs from stage 1, whose backbone, views, batches and epochs it takes."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    optimizer: OptimizerParameters
    checkpoints: ClassifierCheckpointParameters


class BaselineTraining(EncoderTraining):
    """All that the baseline trains by. A parameter of stage 1 that is neither here nor its own is refused."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    checkpoints: ClassifierCheckpointParameters

    @classmethod
    def of(cls, stage1: Stage1Parameters, baseline: BaselineParameters) -> Self:
        """The parameters of stage 1 without its head and loss, and those of `baseline` in their place."""
        shared = stage1.model_dump(exclude={"projection", "loss"})
        return cls.model_validate(shared | baseline.model_dump())


class LrFinderParameters(Parameters):
    """Of `lr_finder`, for either stage."""

    min_lr: Annotated[float, Field(gt=0)]
    max_lr: Annotated[float, Field(gt=0)]
    num_steps: Annotated[int, Field(ge=10)]
    smoothing: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _range_is_ascending(self) -> Self:
        if self.max_lr <= self.min_lr:
            raise InputError(f"max_lr must be above min_lr ({self.min_lr}), got {self.max_lr}")
        return self
