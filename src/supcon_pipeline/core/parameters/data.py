"""Parameters of the images and of `data_prep`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Count,
    Fraction,
    Parameters,
    Seed,
)


class DataPrepParameters(Parameters):
    """Parameters of `data_prep`."""

    image_size: Annotated[int, Field(ge=8, le=4096)]
    num_channels: Literal[1, 3]
    split_by: Literal["image", "class"] = "image"
    validation_fraction: Fraction
    test_fraction: Fraction
    seed: Seed
    crop: Literal["pad", "crop", "stretch"]
    storage: Literal["squares", "encoded"] = "squares"
    num_workers: Annotated[int, Field(ge=0)]
    max_rejected: Annotated[int, Field(ge=0)]
    on_leakage: Literal["refuse", "report", "remove"]
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None
    max_compared: Count = 100_000

    @model_validator(mode="after")
    def _leave_images_to_train_on(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            total = self.validation_fraction + self.test_fraction
            raise InputError(f"validation_fraction + test_fraction must be below 1, got {total:g}")
        return self

    @model_validator(mode="after")
    def _encoded_images_keep_their_aspect(self) -> Self:
        if self.storage == "encoded" and self.crop == "stretch":
            raise InputError(
                "crop must be crop or pad with storage encoded, which keeps the aspect, got stretch; "
                "set crop=crop or set storage=squares"
            )
        return self


class ImagesParameters(Parameters):
    """The group `images` of environments that read one's own images: where they are."""

    path: str | None = None
