"""Photographs that are stored encoded, each with its own aspect, and decoded when they are read."""

import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from jaxtyping import Int, UInt8

from supcon_pipeline.core.data.mapping import MappedFile, file_of
from supcon_pipeline.core.data.pixels import LONGEST, Crop, enlarge_image, fit_image, pack_image

# Of JPEG, with half the resolution in colour: 2.2 of 255 levels off on average, at a fifth of the bytes. At
# 90, embeddings by published weights lie twice as far from those of raw pixels.
_QUALITY = 95
# The parts of its size at which a JPEG can be decoded, smallest first, and OpenCV's names for them.
_REDUCTIONS = {8: "IMREAD_REDUCED_{}_8", 4: "IMREAD_REDUCED_{}_4", 2: "IMREAD_REDUCED_{}_2"}
# Bytes that are held before they are written as one record batch.
_BATCH_BYTES = 2**24


@dataclass(frozen=True)
class EncodedImage:
    """An image as a JPEG, with the size that it has when it is decoded."""

    content: bytes
    height: int
    width: int


def encode_image(image: np.ndarray, image_size: int, num_channels: int) -> EncodedImage:
    """One image with its own aspect, its shorter side at most `image_size`, as a JPEG.

    Args:
        image: `[height, width]` or `[height, width, channels]`.
        image_size: longest that the shorter side may be; smaller images are stored as they are.
        num_channels: 1 or 3.

    Raises:
        InputError: if the image is not uint8 or has neither 1 nor 3 channels.
    """
    import cv2

    fitted = fit_image(image, image_size, num_channels)
    colors = cv2.cvtColor(fitted, cv2.COLOR_RGB2BGR) if num_channels == 3 else fitted
    content = cv2.imencode(".jpg", colors, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return EncodedImage(content.tobytes(), *fitted.shape[:2])


class EncodedWriter:
    """Writes encoded images, a few at a time, as an Arrow file.

    Args:
        file: to write to, from where it is.
        shape: `(image_size, image_size, num_channels)` of the squares that are read.
        crop: how images become square when they are read.
    """

    def __init__(self, file: BinaryIO, shape: Sequence[int], crop: Crop):
        import pyarrow as pa

        told = json.dumps({"image_size": shape[0], "num_channels": shape[-1], "crop": crop})
        fields = [("image", pa.large_binary()), ("height", pa.int32()), ("width", pa.int32())]
        self.schema = pa.schema(fields, {"packing": told})
        self.writer = pa.ipc.new_file(file, self.schema)
        self.waiting: list[EncodedImage] = []
        self.num_waiting = 0

    def write(self, image: EncodedImage) -> None:
        """Add an image."""
        self.waiting.append(image)
        self.num_waiting += len(image.content)
        if self.num_waiting > _BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is held, and the end of the file."""
        self._flush()
        self.writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        rows = [
            {"image": image.content, "height": image.height, "width": image.width} for image in self.waiting
        ]
        self.writer.write_table(pa.Table.from_pylist(rows, self.schema))
        self.waiting, self.num_waiting = [], 0


class EncodedImages:
    """Images that are stored encoded, to be read as an array of squares or each with its own aspect.

    `images[rows]` are squares, `[m, image_size, image_size, num_channels]` uint8, as an array of packed
    images has them: made of the stored images by the method in `data_prep.crop`.

    Args:
        stored: the bytes of an Arrow file, may be memory-mapped.

    Raises:
        ValueError: if the bytes are not such a file.
        OSError: if parts of it are missing or broken.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, stored: UInt8[np.ndarray, " bytes"]):
        import pyarrow as pa

        self.stored = stored
        table = pa.ipc.open_file(pa.py_buffer(stored)).read_all()
        table.validate(full=True)
        told = json.loads(table.schema.metadata[b"packing"])
        self.image_size: int = told["image_size"]
        self.num_channels: int = told["num_channels"]
        self.crop: Crop = told["crop"]
        self._contents = table["image"]
        self._sizes = np.stack([table[side].to_numpy() for side in ("height", "width")], axis=1)

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images as squares."""
        return len(self), self.image_size, self.image_size, self.num_channels

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return self.stored.nbytes

    def __getitem__(self, rows: Any) -> UInt8[np.ndarray, "*rows size size c"]:
        chosen = np.arange(len(self))[rows]
        squares = np.empty((chosen.size, *self.shape[1:]), dtype=np.uint8)
        for square, row in zip(squares, chosen.ravel(), strict=True):
            pixels = self._decode(row, self.image_size)
            square[:] = pack_image(pixels, self.image_size, self.num_channels, self.crop)
        return squares.reshape(*chosen.shape, *self.shape[1:])

    def resized(self, image_size: int) -> Self:
        """The same images, to be read as squares of another size."""
        other = copy(self)
        other.image_size = image_size
        return other

    def whole(
        self, rows: Int[np.ndarray, " m"], least_side: int | None = None
    ) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """Each of the chosen images with its own aspect, one after the other.

        Of an image more than `LONGEST` times as long as it is wide, the part in the middle.

        Args:
            rows: which images.
            least_side: the shorter side may be as short as this, where that is faster; by default, it is as
                long as that of a square.
        """
        for row in rows:
            image = self._decode(row, least_side)
            longest = LONGEST * min(image.shape[:2])
            top, left = (max(0, length - longest) // 2 for length in image.shape[:2])
            image = image[top : top + longest, left : left + longest]
            yield image if least_side else enlarge_image(image, self.image_size)

    def contents(self) -> Iterator[memoryview]:
        """The bytes of each image as it is stored; equal where the images are equal."""
        for chunk in self._contents.chunks:
            for content in chunk:
                yield memoryview(content.as_buffer())

    def _decode(self, row: Any, least_side: int | None) -> UInt8[np.ndarray, "h w c"]:
        """An image, at a part of its size where its shorter side then still is `least_side` long."""
        import cv2

        kind = "COLOR" if self.num_channels == 3 else "GRAYSCALE"
        shorter, flag = self._sizes[row].min(), f"IMREAD_{kind}"
        if least_side is not None:
            fitting = (name for part, name in _REDUCTIONS.items() if shorter // part >= least_side)
            flag = next(fitting, flag).format(kind)
        content = np.frombuffer(self._contents[int(row)].as_buffer(), dtype=np.uint8)
        pixels = cv2.imdecode(content, getattr(cv2, flag))
        if pixels is None:
            raise ValueError(f"stored image {row} must be a JPEG, got {len(content):,} other bytes")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if self.num_channels == 3 else pixels[..., None]

    def __getstate__(self) -> dict[str, Any]:
        """Send memory-mapped images to another process as the place of their file."""
        return {"stored": file_of(self.stored), "image_size": self.image_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored = state["stored"]
        self.__init__(stored.open() if isinstance(stored, MappedFile) else stored)  # type: ignore[misc]
        self.image_size = state["image_size"]


# Images as `data_prep` stores them.
StoredImages = UInt8[np.ndarray, "n h w c"] | EncodedImages


def seen_at(images: StoredImages, image_size: int) -> StoredImages:
    """Images that are to be shrunk to that size or a smaller one: encoded ones are decoded no larger."""
    if isinstance(images, np.ndarray) or images.image_size <= image_size:
        return images
    return images.resized(image_size)


def open_images(path: Path) -> StoredImages:
    """The images of a file that `data_prep` has written, memory-mapped.

    Raises:
        ValueError: if the file holds something else.
        OSError: if it cannot be read.
    """
    stored: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return EncodedImages(stored) if stored.dtype == np.uint8 and stored.ndim == 1 else stored
