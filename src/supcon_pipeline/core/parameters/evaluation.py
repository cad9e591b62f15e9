"""Parameters of `evaluation`."""

from typing import Annotated

from pydantic import Field

from supcon_pipeline.core.parameters.base import Count, KnnParameters, Parameters, SearchParameters, Seed


class BootstrapParameters(Parameters):
    """Bootstrap intervals of the metrics."""

    num_resamples: Annotated[int, Field(ge=10)]
    seed: Seed


class EvaluationParameters(SearchParameters):
    """Parameters of `evaluation`."""

    batch_size: Count
    ks: tuple[Count, ...]
    knn: KnnParameters
    num_neighbours: Count
    num_suspicious: Count
    bootstrap: BootstrapParameters
