"""Parameters of the pipelines that use a trained model."""

from typing import Annotated

from pydantic import Field

from supcon_pipeline.core.parameters.base import Count, Fraction, KnnParameters, Parameters, SearchParameters


class ExportParameters(Parameters):
    """Parameters of `export`."""

    num_checked: Count
    tolerance: Annotated[float, Field(gt=0)]


class HnswParameters(Parameters):
    """The approximate index, HNSW."""

    num_links: Annotated[int, Field(ge=2, le=256)]
    ef_construction: Count
    ef_search: Count


class IndexParameters(SearchParameters):
    """Parameters of `index`."""

    hnsw_above: Annotated[int, Field(ge=0)]
    hnsw: HnswParameters
    recall_k: Count
    num_queries: Count


class InferenceParameters(SearchParameters):
    """Parameters of `inference`."""

    path: str | None
    num_workers: Annotated[int, Field(ge=0)]
    batch_size: Count
    num_neighbours: Count
    knn: KnnParameters
    distance_k: Count
    false_accept_rate: Fraction = 0.05
    max_gallery_images: Count


class EnrolParameters(Parameters):
    """Parameters of `enrol`."""

    path: str | None
    num_workers: Annotated[int, Field(ge=0)]
    batch_size: Count


class OutOfDistributionParameters(SearchParameters):
    """Parameters of `out_of_distribution`."""

    path: str | None
    num_workers: Annotated[int, Field(ge=0)]
    batch_size: Count
    distance_k: Count
