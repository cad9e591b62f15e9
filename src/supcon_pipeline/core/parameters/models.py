"""Parameters of the networks."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Count,
    Parameters,
)


class BackboneParameters(Parameters):
    """The network that computes the embedding."""

    name: str
    stem: Literal["small_image", "imagenet"]
    pretrained: bool
    weights: str | None

    @property
    def is_loaded(self) -> bool:
        """Whether it starts from weights that were trained before."""
        return self.pretrained or self.weights is not None

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        from supcon_pipeline.core.models.backbones import require_backbone

        require_backbone(name)
        return name

    @model_validator(mode="after")
    def _start_from_one_set_of_weights(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise InputError(
                f"pretrained must be false where weights is set, got true and {self.weights!r}; "
                "for the published weights set weights=null"
            )
        return self


class ProjectionParameters(Parameters):
    """The projection head."""

    hidden_dim: Count
    dim: Annotated[int, Field(ge=2)]
