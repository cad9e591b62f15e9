"""All images of a folder, whatever they show."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from supcon_pipeline.core.data.folders import ENDINGS, printable, walk_images
from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.image_source import ImageSource


class ImageFilesDataset(ImageSource):
    """The images in a folder and all folders below it, without labels: all are of the class `unlabelled`.

    They are those that the folder of a class would give to `ImageFolderDataset`.

    Args:
        path: the folder; none where it is given when the run is started.
        parameter: the name of the parameter that gives the path, for errors.
        metadata: for plugins.
    """

    def __init__(self, path: str | None, parameter: str = "path", metadata: dict[str, Any] | None = None):
        self.path, self.parameter, self.metadata = path, parameter, metadata

    def load(self) -> RawImages:
        """The paths of the images, which are their ids too; no image is read."""
        folder = Path(self.path or "").expanduser()
        if not self.path or not folder.is_dir():
            raise InputError(f"{self.parameter} must be a folder of images, got {self.path!r}")
        ignored: Counter[str] = Counter()
        files = [Path(file) for file in walk_images(folder, ignored)]
        if not files:
            endings = ", ".join(ENDINGS)
            raise InputError(
                f"{self.parameter} must hold images ({endings}), got none in {printable(folder)!r}"
            )
        return RawImages(
            images=files,
            labels=np.zeros(len(files), dtype=np.int64),
            class_names=["unlabelled"],
            ids=[printable(file) for file in files],
            source=printable(folder),
            ignored=dict(sorted((+ignored).items())),
        )

    def _exists(self) -> bool:
        return self.path is not None and Path(self.path).is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"path": self.path}
