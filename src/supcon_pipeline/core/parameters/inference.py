"""Parameters of the pipelines that use a trained model."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.base import (
    Count,
    Fraction,
    KnnParameters,
    Parameters,
    QueryExpansionParameters,
    RerankingParameters,
    SearchParameters,
)


class ExportParameters(Parameters):
    """Parameters of `export`."""

    onnx_precision: Literal["float32", "float16", "int8"] = "float32"
    dynamic_resolution: bool = False
    num_checked: Count
    tolerance: Annotated[float, Field(gt=0)]
    max_knn_loss: Annotated[float, Field(ge=0, le=1)] = 0.005


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
    reranking: RerankingParameters | None = None
    query_expansion: QueryExpansionParameters | None = None
    max_gallery_images: Count

    @model_validator(mode="after")
    def _lists_by_one_search(self) -> Self:
        if self.reranking is not None and self.query_expansion is not None:
            raise InputError(
                "query_expansion must be null with reranking, got both; the nearest images are listed by one "
                "of them: set query_expansion=null or set reranking=null"
            )
        return self


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
