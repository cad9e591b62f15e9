"""Parameters of `evaluation`."""

from typing import Annotated

from pydantic import Field

from supcon_pipeline.core.parameters.base import (
    Count,
    Fraction,
    KnnParameters,
    Parameters,
    QueryExpansionParameters,
    RerankingParameters,
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


class EvaluationParameters(SearchParameters):
    """Parameters of `evaluation`.

    Args:
        max_queries: of more images of a split, so many are searched for among the training images, and paired
            with one another for verification.
        max_compared: of more images, so many are compared with all others: to check labels, and where train
            lacks classes; then so many are paired, too.
        recall_ks: ranks of recall@k, where train lacks classes; of rank 1 it is measured in any case.
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
