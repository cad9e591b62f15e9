"""Artifacts that not every run has."""

from typing import Any

from kedro_datasets.json import JSONDataset

from supcon_pipeline.datasets.figure import FigureDataset


class OptionalArtifact:
    """Before a versioned dataset: a run that has none is read all the same, and nothing is loaded of it.

    What takes it says more where it is there, and does not ask for the pipeline that makes it.
    """

    def load(self) -> Any:
        """The artifact, or none."""
        return super().load() if self.exists() else None  # type: ignore[attr-defined, misc]


class OptionalFigureDataset(OptionalArtifact, FigureDataset):
    """A picture that not every run has."""


class OptionalJSONDataset(OptionalArtifact, JSONDataset):
    """A table of JSON that not every run has."""
