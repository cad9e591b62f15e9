"""Parameters of `visualization`."""

from typing import Annotated

from pydantic import Field

from supcon_pipeline.core.parameters.base import Count, Parameters, Seed


class TsneParameters(Parameters):
    """t-SNE maps.

    Args:
        num_iterations: at least 500; the first 250 exaggerate attraction, and the map unfolds afterwards.
    """

    perplexity: Annotated[float, Field(gt=1)]
    num_iterations: Annotated[int, Field(ge=500)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    max_points: Annotated[int, Field(ge=10)]
    num_jobs: Count


class GalleryParameters(Parameters):
    """The galleries of nearest images, of labels to check and of near-duplicates."""

    num_right: Count
    num_wrong: Count
    num_references: Count
    num_suspicious: Count
    num_near_duplicates: Count
    seed: Seed


class VisualizationParameters(Parameters):
    """Parameters of `visualization`."""

    tsne: TsneParameters
    gallery: GalleryParameters
