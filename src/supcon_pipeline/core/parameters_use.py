"""Parameters of the pipelines that put a run to use."""

from typing import Annotated, Self

from pydantic import Field

from supcon_pipeline.core.parameters_base import Count, KnnParameters, Parameters


class ExportParameters(Parameters):
    """Of `export`."""

    num_checked: Count
    tolerance: Annotated[float, Field(gt=0)]


class HnswParameters(Parameters):
    """The approximate index."""

    num_links: Annotated[int, Field(ge=2, le=256)]
    ef_construction: Count
    ef_search: Count


class IndexParameters(Parameters):
    """Of `index`."""

    hnsw_above: Annotated[int, Field(ge=0)]
    hnsw: HnswParameters
    recall_k: Count
    num_queries: Count


class InferenceParameters(Parameters):
    """Of `inference`."""

    path: str | None
    num_workers: Annotated[int, Field(ge=0)]
    batch_size: Count
    num_neighbours: Count
    knn: KnnParameters
    distance_k: Count
    max_gallery_images: Count

    def within(self, num_references: int) -> Self:
        """These where so many images are searched: fewer than asked for all vote and are all listed."""
        capped = {
            "num_neighbours": min(self.num_neighbours, num_references),
            "knn": self.knn.model_copy(update={"k": min(self.knn.k, num_references)}),
            "distance_k": min(self.distance_k, num_references),
        }
        return self.model_copy(update=capped)


class OutOfDistributionParameters(Parameters):
    """Of `out_of_distribution`."""

    path: str | None
    num_workers: Annotated[int, Field(ge=0)]
    batch_size: Count
    distance_k: Count
