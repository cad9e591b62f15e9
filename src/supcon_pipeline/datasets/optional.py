"""Artifacts that not every run has."""

from supcon_pipeline.datasets.documents import JSONDataset
from supcon_pipeline.datasets.faiss_index import FaissIndexDataset
from supcon_pipeline.datasets.figure import FigureDataset
from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset
from supcon_pipeline.datasets.optional_artifact import OptionalArtifact
from supcon_pipeline.datasets.packed_images import PackedImagesDataset
from supcon_pipeline.datasets.tables import ParquetDataset


class OptionalFigureDataset(OptionalArtifact, FigureDataset):
    """A picture that not every run has."""


class OptionalJSONDataset(OptionalArtifact, JSONDataset):
    """A JSON document that not every run has."""


class OptionalParquetDataset(OptionalArtifact, ParquetDataset):
    """A table that not every run has."""


class OptionalNamedTensorsDataset(OptionalArtifact, NamedTensorsDataset):
    """Tensors that not every run has."""


class OptionalPackedImagesDataset(OptionalArtifact, PackedImagesDataset):
    """Packed images that not every run has."""


class OptionalFaissIndexDataset(OptionalArtifact, FaissIndexDataset):
    """An index that not every run has."""
