"""Parameters of `evaluation`."""

from typing import Annotated

from pydantic import Field

from supcon_pipeline.core.parameters.base import Count, KnnParameters, Parameters, SearchParameters, Seed


class BootstrapParameters(Parameters):
    """Bootstrap intervals of the metrics."""

    num_resamples: Annotated[int, Field(ge=10)]
    seed: Seed


class LearningCurveParameters(Parameters):
    """Accuracy by the number of labelled images per class."""

    counts: tuple[Count, ...]
    num_draws: Count


class EvaluationParameters(SearchParameters):
    """Parameters of `evaluation`."""

    batch_size: Count
    ks: tuple[Count, ...]
    recall_ks: tuple[Count, ...] = (1, 2, 4, 8, 10, 100, 1000)
    knn: KnnParameters
    num_neighbours: Count
    num_suspicious: Count
    learning_curve: LearningCurveParameters
    bootstrap: BootstrapParameters
