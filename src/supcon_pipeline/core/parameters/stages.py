"""Parameters of the trainings."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Count,
    NotNegative,
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
from supcon_pipeline.core.parameters.optim import (
    EmaParameters,
    FinetuneParameters,
    OptimizerParameters,
    ScheduleParameters,
)

ViewSize = Annotated[int, Field(ge=8, le=4096)]


class TrainingParameters(Parameters):
    """Parameters that every training has.

    Args:
        max_minutes: the training ends after as many, if that is sooner; learning rate, size of the views and
            what waits for an epoch then follow the share of the time that is used up. Validation does not
            count.
        processes: how many share each batch; `auto` is one for each GPU, 1 where there is none.
    """

    seed: Seed
    processes: Count | Literal["auto"] = 1
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
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    validation_batch_size: Count
    validation_interval: Count
    progress_minutes: Annotated[float, Field(ge=0)] | None


class EncoderTraining(TrainingParameters):
    """Parameters that every training of an encoder has.

    Args:
        backbone: the network.
        finetune: how weights that it starts from are trained further.
        embedding_dim: width of the embedding, by a linear layer behind the backbone; None for that of the
            backbone, without a layer.
        unseen_embedding_dim: the same where validation and test hold classes that train lacks; None for
            `embedding_dim`.
        view_size: height and width at which the network sees images, in evaluation and, unless there are
            `view_sizes`, in training; None for the size at which they are stored.
        view_sizes: sizes of the views in equal parts of the training, to begin with small ones.
        center_crop: share of the stored side that evaluation sees, from the middle.
        mirror_average: whether evaluation takes the mean of the embeddings of an image and its mirror image.
        num_views: views of each image in a batch.
        micro_batch_size: images per forward pass, for batches that do not fit in memory.
        max_validation_queries: of more validation images, so many are searched for in a validation.
    """

    backbone: BackboneParameters
    finetune: FinetuneParameters | None = None
    embedding_dim: Annotated[int, Field(ge=2)] | None = None
    unseen_embedding_dim: Annotated[int, Field(ge=2)] | None = None
    view_size: ViewSize | None = None
    view_sizes: tuple[ViewSize, ...] = ()
    center_crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    mirror_average: bool = False
    num_views: Count
    micro_batch_size: Count | None
    max_validation_queries: Count = 5000

    @property
    def training_sizes(self) -> tuple[int, ...]:
        """The size of the views in equal parts of the training; that of the images if empty."""
        return self.view_sizes or ((self.view_size,) if self.view_size else ())

    def neck_dim(self, has_unseen_classes: bool) -> int | None:
        """Width of the embedding; None for that of the backbone.

        Args:
            has_unseen_classes: whether validation and test hold classes that train lacks.
        """
        return (has_unseen_classes and self.unseen_embedding_dim) or self.embedding_dim

    @model_validator(mode="after")
    def _backbone_is_trained(self) -> Self:
        frozen, num_epochs = self.finetune.freeze_epochs if self.finetune else 0, self.schedule.num_epochs
        if frozen >= num_epochs:
            raise InputError(
                f"finetune.freeze_epochs must be fewer than num_epochs ({num_epochs}), got {frozen}; "
                f"set finetune.freeze_epochs={num_epochs - 1}"
            )
        return self

    @model_validator(mode="after")
    def _backbone_takes_lora(self) -> Self:
        lora = self.finetune.lora if self.finetune else None
        if lora is not None:
            from supcon_pipeline.core.models.backbones import build_skeleton
            from supcon_pipeline.core.optim.low_rank import require_linear_layers

            require_linear_layers(build_skeleton(self.backbone.name), self.backbone.name, lora.rank)
        return self


class Stage1Parameters(EncoderTraining):
    """Parameters of `stage1`."""

    projection: ProjectionParameters | None
    loss: ContrastiveLossParameters
    loader: ContrastiveLoaderParameters
    checkpoints: ContrastiveCheckpointParameters

    @model_validator(mode="after")
    def _mixed_labels_fit_the_loss(self) -> Self:
        if self.mixing is not None and self.loss.name != "supcon":
            raise InputError(
                f"mixing must be null with {self.loss.name}, got {self.mixing.name}; only supcon takes the "
                "class probabilities of mixed images: set loss.name=supcon or set mixing=null"
            )
        return self

    @model_validator(mode="after")
    def _memory_is_used(self) -> Self:
        memory, num_epochs = self.loss.memory, self.schedule.num_epochs
        if memory is None:
            return self
        if self.mixing is not None:
            raise InputError(
                f"loss.memory must be null with mixing, got {memory.size} projections; the images of earlier "
                "batches have one class each: set mixing=null or set loss.memory=null"
            )
        if memory.warmup_epochs >= num_epochs:
            raise InputError(
                f"loss.memory.warmup_epochs must be fewer than num_epochs ({num_epochs}), "
                f"got {memory.warmup_epochs}; set loss.memory.warmup_epochs={num_epochs - 1}"
            )
        return self

    @model_validator(mode="after")
    def _anchors_have_positives(self) -> Self:
        if self.num_views == 1 and self.loss.name == "simclr":
            raise InputError(
                "num_views must be at least 2 with simclr, got 1; its positives are other views of an image: "
                "set num_views=2"
            )
        if self.num_views == 1 and self.loader.images_per_class == 1 and self.loss.name != "proxy_anchor":
            raise InputError(
                "loader.images_per_class must be at least 2 if num_views is 1, got 1; "
                "no image would have a positive: set loader.images_per_class=2"
            )
        return self


class SwaParameters(Parameters):
    """Parameters of `swa`, the same for all stages."""

    batch_size: Annotated[int, Field(ge=2)]


class Stage2Parameters(TrainingParameters):
    """Parameters of `stage2`."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    logit_adjustment: NotNegative = 0.0
    checkpoints: ClassifierCheckpointParameters


class BaselineParameters(Parameters):
    """Parameters of `baseline`; backbone, views, batches and epochs are those of `stage1`."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    logit_adjustment: NotNegative = 0.0
    optimizer: OptimizerParameters
    checkpoints: ClassifierCheckpointParameters


class BaselineTraining(EncoderTraining):
    """All parameters of the baseline's training; one of stage 1 that it does not know is refused."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    logit_adjustment: NotNegative = 0.0

    @classmethod
    def of(cls, stage1: Stage1Parameters, baseline: BaselineParameters) -> Self:
        """The parameters of stage 1 without head and loss, overridden by those of `baseline`."""
        shared = stage1.model_dump(exclude={"projection", "loss"})
        return cls.model_validate(shared | baseline.model_dump())

    def chosen_by(self, metric: str) -> Self:
        """The same training with checkpoints chosen by another metric."""
        checkpoints = self.checkpoints.model_copy(update={"metric": metric})
        return self.model_copy(update={"checkpoints": checkpoints})


class LrFinderParameters(Parameters):
    """Parameters of `lr_finder`, the same for both stages."""

    min_lr: Annotated[float, Field(gt=0)]
    max_lr: Annotated[float, Field(gt=0)]
    num_steps: Annotated[int, Field(ge=10)]
    smoothing: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _range_is_ascending(self) -> Self:
        if self.max_lr <= self.min_lr:
            raise InputError(
                f"max_lr must be above min_lr ({self.min_lr:g}), got {self.max_lr:g}; "
                f"set max_lr={1000 * self.min_lr:g}"
            )
        return self
