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
    """Mixup and CutMix.

    Args:
        name: the method; `both` uses either with equal probability.
        alpha: parameter of the Beta distribution that mixing weights are drawn from.
        probability: share of the images that are mixed.
    """

    name: Literal["mixup", "cutmix", "both"]
    alpha: Annotated[float, Field(gt=0)]
    probability: Annotated[float, Field(gt=0, le=1)]


class LoaderParameters(Parameters):
    """How batches are made.

    Args:
        batch_size: images per step.
        num_workers: processes that make views; 0 makes them in the training process.
        sampler: `shuffled` takes every image once per epoch, `class_balanced` equally many images of each
            class in a batch.
        images_per_class: images of each class in a batch; for `class_balanced` only.
        within_category: whether the classes of a batch are of one category; for `class_balanced` only.
    """

    batch_size: Count
    num_workers: Annotated[int, Field(ge=0)]
    sampler: Literal["shuffled", "class_balanced"] = "shuffled"
    images_per_class: Count | None = None
    within_category: bool = False

    @model_validator(mode="after")
    def _is_balanced_by_a_number(self) -> Self:
        from supcon_pipeline.core.views.sampling import require_balanced

        if (self.sampler == "class_balanced") != (self.images_per_class is not None):
            divisors = (size for size in range(2, self.batch_size) if self.batch_size % size == 0)
            is_needed = self.images_per_class is None
            contract, remedy = ("set", next(divisors, 1)) if is_needed else ("null", "null")
            raise InputError(
                f"images_per_class must be {contract} with {self.sampler}, got {self.images_per_class}; "
                f"set images_per_class={remedy}"
            )
        if self.images_per_class is not None:
            require_balanced(self.batch_size, self.images_per_class)
        return self

    @model_validator(mode="after")
    def _has_categories_of_classes(self) -> Self:
        if self.within_category and self.sampler != "class_balanced":
            raise InputError(
                f"within_category must be false with {self.sampler}, got true; only class_balanced chooses "
                "the classes of a batch: set within_category=false"
            )
        return self


class ContrastiveLoaderParameters(LoaderParameters):
    """How batches are made for a loss that compares the images of a batch."""

    batch_size: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _has_negatives(self) -> Self:
        if self.images_per_class == self.batch_size:
            raise InputError(
                f"images_per_class must be below batch_size ({self.batch_size}), "
                f"got {self.images_per_class}; a batch of one class has no negatives: "
                f"set batch_size={2 * self.batch_size}"
            )
        return self
