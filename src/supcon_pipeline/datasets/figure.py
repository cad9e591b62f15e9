"""Figures that can be loaded again."""

from kedro_datasets._typing import ImagePreview, PlotlyPreview
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.plotly import JSONDataset

from supcon_pipeline.datasets.checked_file import CheckedFile


class _PictureDataset(MatplotlibDataset):
    def load(self) -> bytes:
        with self._fs.open(self._get_load_path().as_posix(), "rb") as file:
            picture: bytes = file.read()
        return picture


class FigureDataset(CheckedFile, _PictureDataset):
    """A matplotlib figure; loading it gives the bytes of the picture, for a page that shows it."""

    def preview(self) -> ImagePreview:
        """The picture, for Kedro-Viz, which Kedro's own reads as it is."""
        with self._store.reading(self._get_load_path()) as file:
            picture: ImagePreview = _PictureDataset.preview(self._at(file))
        return picture


class InteractiveFigureDataset(CheckedFile, JSONDataset):
    """A plotly figure."""

    def preview(self) -> PlotlyPreview:
        """The figure, for Kedro-Viz, which Kedro's own reads as it is."""
        with self._store.reading(self._get_load_path()) as file:
            figure: PlotlyPreview = JSONDataset.preview(self._at(file))
        return figure
