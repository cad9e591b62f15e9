"""Matplotlib figures that can be read back."""

from kedro_datasets.matplotlib import MatplotlibDataset


class FigureDataset(MatplotlibDataset):
    """A matplotlib figure; loading gives the picture's bytes, for a page that shows it."""

    def load(self) -> bytes:
        """The bytes of the picture file."""
        with self._fs.open(self._get_load_path().as_posix(), "rb") as file:
            picture: bytes = file.read()
        return picture
