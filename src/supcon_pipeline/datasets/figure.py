"""Figures that can be loaded again."""

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


class InteractiveFigureDataset(CheckedFile, JSONDataset):
    """A plotly figure."""
