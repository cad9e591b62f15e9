"""Parameters of `evaluation`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Count,
    Fraction,
    KnnParameters,
    Parameters,
    SearchParameters,
    Seed,
)


class BootstrapParameters(Parameters):
    """Bootstrap intervals of the metrics."""

    num_resamples: Annotated[int, Field(ge=10)]
    seed: Seed


class LearningCurveParameters(Parameters):
    """Accuracy by the number of labelled images per class."""

    counts: tuple[Count, ...]
    num_draws: Count


class VerificationParameters(Parameters):
    """Thresholds that validation chooses, and where errors are stated."""

    false_match_rate: Fraction = 0.01
    false_match_rates: tuple[Fraction, ...] = (0.1, 0.01, 0.001, 0.0001)
    false_accept_rate: Fraction = 0.05


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


class EvaluationParameters(SearchParameters):
    """Parameters of `evaluation`.

    Args:
        max_queries: of more images of a split, so many are searched for among the training images.
        max_compared: of more images, so many are compared with all others: to check labels, and where train
            lacks classes.
    """

    batch_size: Count
    max_queries: Count = 50_000
    max_compared: Count = 100_000
    ks: tuple[Count, ...]
    recall_ks: tuple[Count, ...] = (1, 2, 4, 8, 10, 100, 1000)
    knn: KnnParameters
    num_neighbours: Count
    num_suspicious: Count
    reranking: RerankingParameters | None = None
    query_expansion: QueryExpansionParameters | None = None
    verification: VerificationParameters = VerificationParameters()
    learning_curve: LearningCurveParameters
    bootstrap: BootstrapParameters
