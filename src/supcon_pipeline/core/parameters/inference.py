"""Parameters of the pipelines that put a run to use."""

from typing import Annotated

from pydantic import Field

from supcon_pipeline.core.parameters.base import Count, KnnParameters, Parameters, SearchParameters


class ExportParameters(Parameters):
    """Of `export`."""

    num_checked: Count
    tolerance: Annotated[float, Field(gt=0)]


class HnswParameters(Parameters):
    """The approximate index."""

    num_links: Annotated[int, Field(ge=2, le=256)]
    ef_construction: Count
    ef_search: Count


class IndexParameters(SearchParameters):
    """Of `index`."""

    hnsw_above: Annotated[int, Field(ge=0)]
    hnsw: HnswParameters
    recall_k: Count
    num_queries: Count


class InferenceParameters(SearchParameters):
    """Of `inference`."""

    path: str | None
    num_workers: Annotated[int, Field(ge=0)]
    batch_size: Count
    num_neighbours: Count
    knn: KnnParameters
    distance_k: Count
    max_gallery_images: Count


class OutOfDistributionParameters(SearchParameters):
    """Of `out_of_distribution`."""

    path: str | None
    num_workers: Annotated[int, Field(ge=0)]
    batch_size: Count
    distance_k: Count
