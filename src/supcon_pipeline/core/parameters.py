"""Parameters of the pipelines: names, types and ranges. A name that is not here is an error."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from supcon_pipeline.core.parameters_base import (
    Count,
    Decay,
    Fraction,
    KnnParameters,
    Parameters,
    SearchParameters,
    Seed,
)
from supcon_pipeline.core.parameters_batches import (
    ContrastiveLoaderParameters,
    LoaderParameters,
    MixingParameters,
    Transforms,
)


class DataPrepParameters(Parameters):
    """Of `data_prep`."""

    image_size: Annotated[int, Field(ge=8, le=4096)]
    num_channels: Literal[1, 3]
    validation_fraction: Fraction
    test_fraction: Fraction
    seed: Seed
    crop: Literal["pad", "crop", "stretch"]
    num_workers: Annotated[int, Field(ge=0)]
    max_rejected: Annotated[int, Field(ge=0)]
    on_leakage: Literal["refuse", "report", "remove"]

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            total = self.validation_fraction + self.test_fraction
            raise ValueError(f"validation_fraction + test_fraction must be below 1, got {total}")
        return self


class ImagesParameters(Parameters):
    """Of `images`, in an environment of one's own images: where they are."""

    path: str | None = None


class BackboneParameters(Parameters):
    """Which network gives the embedding."""

    name: str
    stem: Literal["small_image", "imagenet"]
    pretrained: bool
    weights: str | None

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        from supcon_pipeline.core.models.backbones import require_backbone

        require_backbone(name)
        return name

    @model_validator(mode="after")
    def _start_from_one_set_of_weights(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError(
                f"pretrained must be false where weights is set, got true and {self.weights!r}; "
                "set weights to null to use the published ones"
            )
        return self


class ProjectionParameters(Parameters):
    """Widths of the projection head."""

    hidden_dim: Count
    dim: Annotated[int, Field(ge=2)]


class ContrastiveLossParameters(Parameters):
    """The loss of stage 1."""

    name: Literal["supcon", "sincere", "simclr"]
    temperature: Annotated[float, Field(gt=0)]
    classifier_weight: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _smooths_the_labels_of_a_classifier(self) -> Self:
        if self.label_smoothing and not self.classifier_weight:
            raise ValueError(
                f"label_smoothing must be 0 without classifier_weight, got {self.label_smoothing}; "
                "contrastive losses have no labels to smooth"
            )
        return self


class OptimizerParameters(Parameters):
    """How weights follow their gradients.

    One flat table and not one per optimizer, with null for the usual value of an option: runtime parameters
    are merged over the YAML files key by key, and `--params stage1.optimizer.name=adamw` must be enough. An
    option that the optimizer does not use is refused, so that none is without effect. The usual values are
    those of `core.optim.OPTIMIZERS`.

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
            raise ValueError("momentum must be above 0 with nesterov, got 0.0; set nesterov to false")
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


class CheckpointParameters(Parameters):
    """Which epochs are kept."""

    metric: str
    top_k: Count


class EarlyStoppingParameters(Parameters):
    """When to stop before the last epoch: after `patience` validations without a better metric."""

    patience: Count


class ContrastiveCheckpointParameters(CheckpointParameters):
    """Which epochs of stage 1 are kept."""

    metric: Literal[
        "embedding.precision_at_1",
        "embedding.r_precision",
        "embedding.mean_average_precision_at_r",
        "embedding.ami",
        "embedding.nmi",
        "projection.precision_at_1",
        "projection.r_precision",
        "projection.mean_average_precision_at_r",
        "projection.ami",
        "projection.nmi",
    ]


class ClassifierCheckpointParameters(CheckpointParameters):
    """Which epochs of stage 2 and of the baseline are kept."""

    metric: Literal["accuracy", "log_loss"]


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


class Stage1Parameters(TrainingParameters):
    """Of `stage1`."""

    backbone: BackboneParameters
    projection: ProjectionParameters
    loss: ContrastiveLossParameters
    num_views: Count
    loader: ContrastiveLoaderParameters
    micro_batch_size: Count | None
    checkpoints: ContrastiveCheckpointParameters

    @model_validator(mode="after")
    def _loss_takes_mixed_labels(self) -> Self:
        if self.mixing is not None and self.loss.name != "supcon":
            raise ValueError(
                f"mixing must be null with {self.loss.name}, got {self.mixing.name}; of the losses, supcon "
                "takes class probabilities"
            )
        return self

    @model_validator(mode="after")
    def _anchors_have_positives(self) -> Self:
        if self.num_views == 1 and self.loss.name == "simclr":
            raise ValueError(
                "num_views must be at least 2 with simclr, got 1; its positives are other views of an image"
            )
        if self.num_views == 1 and self.loader.images_per_class == 1:
            raise ValueError(
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


class LrFinderParameters(Parameters):
    """Of `lr_finder`, for either stage."""

    min_lr: Annotated[float, Field(gt=0)]
    max_lr: Annotated[float, Field(gt=0)]
    num_steps: Annotated[int, Field(ge=10)]
    smoothing: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _range_is_ascending(self) -> Self:
        if self.max_lr <= self.min_lr:
            raise ValueError(f"max_lr must be above min_lr ({self.min_lr}), got {self.max_lr}")
        return self


class BootstrapParameters(Parameters):
    """The intervals around the numbers."""

    num_resamples: Annotated[int, Field(ge=10)]
    seed: Seed


class EvaluationParameters(SearchParameters):
    """Of `evaluation`."""

    batch_size: Count
    ks: tuple[Count, ...]
    knn: KnnParameters
    num_neighbours: Count
    num_suspicious: Count
    bootstrap: BootstrapParameters
