"""Matplotlib figures that can be loaded again."""

from kedro_datasets.matplotlib import MatplotlibDataset


class FigureDataset(MatplotlibDataset):
    """A matplotlib figure; loading it gives the bytes of the picture, for a page that shows it."""

    def load(self) -> bytes:
        """The bytes of the picture file."""
        with self._fs.open(self._get_load_path().as_posix(), "rb") as file:
            picture: bytes = file.read()
        return picture
