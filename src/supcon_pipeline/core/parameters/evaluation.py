"""Parameters of `evaluation`."""

from typing import Annotated

from pydantic import Field

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


class EvaluationParameters(SearchParameters):
    """Parameters of `evaluation`."""

    batch_size: Count
    ks: tuple[Count, ...]
    recall_ks: tuple[Count, ...] = (1, 2, 4, 8, 10, 100, 1000)
    knn: KnnParameters
    num_neighbours: Count
    num_suspicious: Count
    verification: VerificationParameters = VerificationParameters()
    learning_curve: LearningCurveParameters
    bootstrap: BootstrapParameters
