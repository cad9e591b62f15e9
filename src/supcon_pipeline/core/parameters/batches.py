"""Parameters of views and batches."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import Count, Parameters
from supcon_pipeline.core.views.policy import build_transform
from supcon_pipeline.core.views.presets import expand_presets


class TransformParameters(Parameters):
    """One albumentations transform by name."""

    name: str
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _exists(self) -> Self:
        build_transform(self.name, self.args)
        return self


Transforms = Annotated[list[TransformParameters], BeforeValidator(expand_presets)]


class MixingParameters(Parameters):
    """How the images of a batch are mixed with one another.

    Args:
        name: of the method; `both` takes one or the other, evenly.
        alpha: of the Beta distribution that the shares come from.
        probability: share of the images that are mixed.
    """

    name: Literal["mixup", "cutmix", "both"]
    alpha: Annotated[float, Field(gt=0)]
    probability: Annotated[float, Field(gt=0, le=1)]


class LoaderParameters(Parameters):
    """How images are fetched.

    Args:
        batch_size: images per step.
        num_workers: processes that make views.
        sampler: every image once per epoch, or equally many images of each class of a batch.
        images_per_class: of each class of a batch; used by `class_balanced`.
    """

    batch_size: Count
    num_workers: Annotated[int, Field(ge=0)]
    sampler: Literal["shuffled", "class_balanced"] = "shuffled"
    images_per_class: Count | None = None

    @model_validator(mode="after")
    def _is_balanced_by_a_number(self) -> Self:
        from supcon_pipeline.core.views.sampling import require_balanced

        if (self.sampler == "class_balanced") != (self.images_per_class is not None):
            contract = "be set" if self.images_per_class is None else "be null"
            raise InputError(
                f"images_per_class must {contract} with {self.sampler}, got {self.images_per_class}"
            )
        if self.images_per_class is not None:
            require_balanced(self.batch_size, self.images_per_class)
        return self


class ContrastiveLoaderParameters(LoaderParameters):
    """How images are fetched for a loss that compares them with one another."""

    batch_size: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _has_negatives(self) -> Self:
        if self.images_per_class == self.batch_size:
            raise InputError(
                f"images_per_class must be below batch_size ({self.batch_size}), "
                f"got {self.images_per_class}; a batch of one class has no negatives"
            )
        return self
