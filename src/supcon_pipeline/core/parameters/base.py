"""What all models of parameters are made of."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Parameters(BaseModel):
    """Base of all: nothing unknown, nothing changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchParameters(Parameters):
    """Of what searches images: no more neighbours can be found than there are."""

    def within(self, num_references: int) -> Self:
        """These where so many images are searched: fewer than asked for all vote and are all listed.

        A k above that is left out of `ks`, because the share among images that are not there means nothing.
        """
        capped: dict[str, Any] = {}
        for name, value in self:
            if isinstance(value, SearchParameters):
                capped[name] = value.within(num_references)
            elif name in ("k", "num_neighbours", "distance_k", "recall_k"):
                capped[name] = min(value, num_references)
            elif name == "ks":
                capped[name] = tuple(k for k in value if k <= num_references)
        return self.model_copy(update=capped)


class KnnParameters(SearchParameters):
    """Weighted k-NN classification."""

    k: Count
    temperature: Annotated[float, Field(gt=0)]
