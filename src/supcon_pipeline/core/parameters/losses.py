"""Parameters of the losses."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import Count, NotNegative, Parameters


class MemoryParameters(Parameters):
    """A memory of earlier batches.

    Args:
        size: projections that are kept.
        warmup_epochs: epochs without it.
    """

    size: Count
    warmup_epochs: Annotated[int, Field(ge=0)]


class ContrastiveLossParameters(Parameters):
    """The loss of stage 1."""

    name: Literal["supcon", "sincere", "simclr", "proxy_anchor"]
    temperature: Annotated[float, Field(gt=0)]
    class_averaged: bool = False
    memory: MemoryParameters | None = None
    classifier_weight: NotNegative
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    logit_adjustment: NotNegative = 0.0

    @model_validator(mode="after")
    def _averages_in_supcon(self) -> Self:
        if self.class_averaged and self.name != "supcon":
            raise InputError(
                f"class_averaged must be false with {self.name}, got true; only supcon has class averages in "
                "its denominator: set name=supcon or set class_averaged=false"
            )
        return self

    @model_validator(mode="after")
    def _remembers_in_plain_supcon(self) -> Self:
        other = "class_averaged" if self.class_averaged else self.name
        if self.memory is not None and other != "supcon":
            raise InputError(
                f"memory must be null with {other}, got {self.memory.size} projections; only supcon without "
                "class averages compares with earlier batches: set memory=null"
            )
        return self

    @model_validator(mode="after")
    def _has_a_classifier(self) -> Self:
        lacking = {"label_smoothing": "labels to smooth", "logit_adjustment": "logits to adjust"}
        for name, what in lacking.items():
            if getattr(self, name) and not self.classifier_weight:
                raise InputError(
                    f"{name} must be 0 without classifier_weight, got {getattr(self, name)}; "
                    f"a contrastive loss alone has no {what}, set {name}=0"
                )
        return self
