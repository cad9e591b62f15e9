"""What all models of parameters are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Parameters(BaseModel):
    """Base of all: nothing unknown, nothing changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KnnParameters(Parameters):
    """Weighted k-NN classification."""

    k: Count
    temperature: Annotated[float, Field(gt=0)]
