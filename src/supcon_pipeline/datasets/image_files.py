"""All images in a folder, without labels."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from supcon_pipeline.core.data.folders import ENDINGS, decode_name, describe_missing, walk_images
from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.image_source import ImageSource


class ImageFilesDataset(ImageSource):
    """The images in a folder and all folders below it, all of the class `unlabelled`.

    Files are chosen as `ImageFolderDataset` chooses those of a class.

    Args:
        path: the folder; none as long as it has not been set.
        parameter: name of the parameter that sets the path, for messages.
        metadata: for plugins.
    """

    def __init__(self, path: str | None, parameter: str = "path", metadata: dict[str, Any] | None = None):
        self.path, self.parameter, self.metadata = path, parameter, metadata

    def load(self) -> RawImages:
        """The paths of the images, which are also their ids; no image is read."""
        folder = Path(self.path or "").expanduser()
        if self.path and folder.is_file():
            raise InputError(
                f"{self.parameter} must be a folder of images, got {self.path!r}, {describe_missing(folder)}"
            )
        if not self.path or not folder.is_dir():
            raise InputError(
                f"{self.parameter} must be a folder of images, got {self.path!r}; "
                f"add --params {self.parameter}=<folder>"
            )
        ignored: Counter[str] = Counter()
        files = [Path(file) for file in walk_images(folder, ignored)]
        if not files:
            endings = ", ".join(ENDINGS)
            raise InputError(
                f"{self.parameter} must hold images ({endings}), got none in {decode_name(folder)!r}"
            )
        return RawImages(
            images=files,
            labels=np.zeros(len(files), dtype=np.int64),
            class_names=["unlabelled"],
            ids=[decode_name(file) for file in files],
            source=decode_name(folder),
            ignored=dict(sorted((+ignored).items())),
        )

    def _exists(self) -> bool:
        return self.path is not None and Path(self.path).is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"path": self.path}
