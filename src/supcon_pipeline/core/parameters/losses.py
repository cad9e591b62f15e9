"""Parameters of the losses."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Parameters,
)


class ContrastiveLossParameters(Parameters):
    """The loss of stage 1."""

    name: Literal["supcon", "sincere", "simclr"]
    temperature: Annotated[float, Field(gt=0)]
    classifier_weight: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _smooth_only_with_a_classifier(self) -> Self:
        if self.label_smoothing and not self.classifier_weight:
            raise InputError(
                f"label_smoothing must be 0 without classifier_weight, got {self.label_smoothing}; "
                "a contrastive loss alone has no labels to smooth, set label_smoothing=0"
            )
        return self
