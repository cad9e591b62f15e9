"""Artifacts that not every run has."""

from supcon_pipeline.datasets.documents import JSONDataset
from supcon_pipeline.datasets.figure import FigureDataset
from supcon_pipeline.datasets.optional_artifact import OptionalArtifact


class OptionalFigureDataset(OptionalArtifact, FigureDataset):
    """A picture that not every run has."""


class OptionalJSONDataset(OptionalArtifact, JSONDataset):
    """A JSON document that not every run has."""
