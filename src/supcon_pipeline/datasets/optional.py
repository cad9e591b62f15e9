"""Artifacts that not every run has."""

from typing import Any

from supcon_pipeline.datasets.documents import JSONDataset
from supcon_pipeline.datasets.figure import FigureDataset


class OptionalArtifact:
    """Mixin for versioned datasets: a run may lack this artifact, which then loads as none.

    A node that takes it shows it where it exists, and does not require the pipeline that makes it.
    """

    def load(self) -> Any:
        """The artifact, or none where the run lacks it."""
        return super().load() if self.exists() else None  # type: ignore[attr-defined, misc]


class OptionalFigureDataset(OptionalArtifact, FigureDataset):
    """A picture that not every run has."""


class OptionalJSONDataset(OptionalArtifact, JSONDataset):
    """A JSON document that not every run has."""
