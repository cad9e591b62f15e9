"""Base classes and types of all parameters."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from supcon_pipeline.core.messages import InputError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Parameters(BaseModel):
    """Base of all: unknown names and numbers that are not finite are refused, values are read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SearchParameters(Parameters):
    """Parameters of a search for neighbours, of which there are at most as many as images to search."""

    def within(self, num_references: int) -> Self:
        """A copy in which no number of neighbours exceeds the number of images to search.

        A larger k is removed from `ks`, because a precision at more neighbours than there are means nothing.

        Args:
            num_references: images to search.
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


class RerankingParameters(Parameters):
    """Re-ranking by reciprocal neighbours."""

    k1: Annotated[int, Field(ge=2)] = 20
    k2: Count = 6
    weight: Annotated[float, Field(ge=0, le=1)] = 0.3

    @model_validator(mode="after")
    def _averages_over_neighbours(self) -> Self:
        if self.k2 > self.k1:
            raise InputError(f"k2 must be at most k1 ({self.k1}), got {self.k2}; set k2={self.k1}")
        return self


class QueryExpansionParameters(Parameters):
    """Expansion of queries by what they find."""

    k: Count = 5
    alpha: Annotated[float, Field(ge=0)] = 3.0
