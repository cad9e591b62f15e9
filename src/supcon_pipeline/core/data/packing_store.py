"""A store of packed images, so that the same images are packed only once."""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from supcon_pipeline.core.atomic import atomic_path, set_aside
from supcon_pipeline.core.checksums import checksum_of, checksum_path, is_proven
from supcon_pipeline.core.data.encoded_images import EncodedImage, EncodedWriter, StoredImages, open_images
from supcon_pipeline.core.data.images import ImageItem
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_pool import pack_stream
from supcon_pipeline.core.data.pixels import Crop
from supcon_pipeline.core.sources import source_hash

logger = logging.getLogger(__name__)
# Packings unused for this long are deleted.
_KEPT_SECONDS = 24 * 60 * 60


def write_packed(
    file: BinaryIO, packed: Iterable[np.ndarray | str], shape: tuple[int, ...]
) -> list[tuple[int, str]]:
    """Stream images into an open `.npy` file; returns position and reason of each rejected one.

    NumPy pads the header for a growing first axis, so that the count can be filled in at the end.
    """
    _write_header(file, (0, *shape))
    rejected, count = [], 0
    for position, image in enumerate(packed):
        if isinstance(image, str):
            rejected.append((position, image))
        else:
            file.write(np.ascontiguousarray(image).data)
            count += 1
    _write_header(file, (count, *shape))
    return rejected


def write_encoded(
    file: BinaryIO, packed: Iterable[EncodedImage | str], shape: tuple[int, ...], crop: Crop
) -> list[tuple[int, str]]:
    """The same for encoded images, which are one Arrow file inside the `.npy` file, as its bytes."""
    _write_header(file, (0,))
    start, writer = file.tell(), EncodedWriter(file, shape, crop)
    rejected = []
    for position, image in enumerate(packed):
        if isinstance(image, str):
            rejected.append((position, image))
        else:
            writer.write(image)
    writer.close()
    _write_header(file, (file.tell() - start,))
    return rejected


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)


class PackingStore:
    """A folder with the packings of the last day, so that the same images are not packed again.

    Rejected images are tried again each time: a disk that was offline, or a lack of memory, says nothing
    about the image. If one can be packed now, all images are packed again. So they are if a packing is not as
    it was written, which is set aside.

    Args:
        folder: path of the folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def pack(
        self, items: Sequence[ImageItem], packing: Packing, num_workers: int
    ) -> tuple[StoredImages, list[tuple[int, str]]]:
        """The packed images, memory-mapped, and position and reason of each rejected one."""
        name = identify_packing(items, packing)
        images, record = self.folder / f"{name}.npy", self.folder / f"{name}.json"
        if _is_whole(images, record) and _are_rejected(record, items, packing, num_workers):
            logger.info("These images have not changed since they were packed; reusing the packed images")
            for path in (images, record):
                os.utime(path)
                os.utime(checksum_path(path))
        else:
            self._write(images, record, items, packing, num_workers)
        return open_images(images), _read_rejected(record)

    def _write(
        self, images: Path, record: Path, items: Sequence[ImageItem], packing: Packing, num_workers: int
    ) -> None:
        """Pack, then delete old packings; artifacts made from them stay."""
        from rich.progress import track

        packed: Iterator[Any] = pack_stream(items, packing, num_workers)
        is_encoded = packing.storage == "encoded"
        most = None if is_encoded else len(items) * int(np.prod(packing.shape))
        with atomic_path(images, checksum_of, most) as temporary:
            with temporary.open("wb") as file:
                tracked = track(packed, "pack images", len(items), transient=True)
                if is_encoded:
                    rejected = write_encoded(file, tracked, packing.shape, packing.crop)
                else:
                    rejected = write_packed(file, tracked, packing.shape)
            with atomic_path(record, checksum_of) as place:
                place.write_text(json.dumps(rejected), "utf-8")
        self._clean()

    def _clean(self) -> None:
        """Delete packings older than a day; a younger one may belong to a concurrent run."""
        for path in self.folder.iterdir():
            try:
                if path.is_file() and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                # A concurrent run deleted it first.
                continue


def _is_whole(*files: Path) -> bool:
    """Whether all files of a packing are there as they were written; those that are not are set aside."""
    present = [path for path in files if path.exists()]
    broken = [path for path in present if not is_proven(path)]
    for path in broken:
        logger.warning(
            "%s is not as it was written, so the images are packed again; the file is now %s",
            path,
            set_aside(path).name,
        )
    return len(present) == len(files) and not broken


def _read_rejected(record: Path) -> list[tuple[int, str]]:
    return [(position, reason) for position, reason in json.loads(record.read_text("utf-8"))]


def _are_rejected(record: Path, items: Sequence[ImageItem], packing: Packing, num_workers: int) -> bool:
    """Whether the rejected images still cannot be packed."""
    positions = [position for position, _ in _read_rejected(record)]
    if not positions:
        return True
    packed = pack_stream([items[position] for position in positions], packing, num_workers)
    return sum(1 for _ in takewhile(lambda result: isinstance(result, str), packed)) == len(positions)


def identify_packing(items: Sequence[ImageItem], packing: Packing) -> str:
    """A name for these images, packed this way by this code, as 32 hexadecimal digits.

    A file is identified by its path, size and modification time: reading all of them would take as long as
    packing. Images in memory are identified by their content.
    """
    import cv2
    import PIL

    versions = [PIL.__version__, cv2.__version__, source_hash("data.packing")]
    digest = sha256(json.dumps([asdict(packing), *versions]).encode())
    for index in range(len(items)):
        digest.update(_identify(items[index]))
    return digest.hexdigest()[:32]


def _identify(item: ImageItem) -> bytes:
    if isinstance(item, np.ndarray):
        return sha256(repr((item.shape, str(item.dtype))).encode() + item.tobytes()).digest()
    if isinstance(item, bytes):
        return sha256(item).digest()
    try:
        status = item.stat()
    except (OSError, ValueError) as error:
        # A name with a zero byte is a ValueError.
        return sha256(repr((str(item), str(error))).encode()).digest()
    return sha256(repr((str(item), status.st_size, status.st_mtime_ns)).encode()).digest()
