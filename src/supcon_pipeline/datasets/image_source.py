"""What all sources of labelled images have in common."""

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from supcon_pipeline.core.images import RawImages


class ImageSource(AbstractDataset[Any, RawImages]):
    """Labelled images of someone else's, which are only read."""

    def save(self, data: Any) -> NoReturn:
        """Refused."""
        raise DatasetError(f"{type(self).__name__} must only be read, got {type(data).__name__} to save")
