"""A store of packed images, so that the same images are packed once."""

import json
import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.core.data.images import ImageItem
from supcon_pipeline.core.data.packing import Packed, Packing
from supcon_pipeline.core.data.packing_pool import pack_stream
from supcon_pipeline.core.sources import source_hash

logger = logging.getLogger(__name__)
# A packing that nobody has asked for so long, in seconds, is let go of.
_KEPT_SECONDS = 24 * 60 * 60


def write_packed(file: BinaryIO, packed: Iterable[Packed], shape: tuple[int, ...]) -> list[tuple[int, str]]:
    """Write images as they come into an open `.npy` file; gives the position and the reason of each rejected.

    NumPy pads the header for a growing first axis, so that the count can be put in at the end.
    """
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (0, *shape)}
    np.lib.format.write_array_header_1_0(file, header)
    rejected, count = [], 0
    for position, image in enumerate(packed):
        if isinstance(image, str):
            rejected.append((position, image))
        else:
            file.write(np.ascontiguousarray(image).data)
            count += 1
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *shape)})
    return rejected


class PackingStore:
    """A folder with the packings of the last day, so that the same images are not packed again.

    Those that were rejected are tried again each time: a disk that was away, or memory that was short, says
    nothing of the image. Where one can be packed now, all are.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def pack(
        self, items: Sequence[ImageItem], packing: Packing, num_workers: int
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """The packed images, memory-mapped, and the position and the reason of each that was rejected."""
        name = identify_packing(items, packing)
        images, record = self.folder / f"{name}.npy", self.folder / f"{name}.json"
        if images.exists() and record.exists() and _are_rejected(record, items, packing, num_workers):
            logger.info("Nothing has changed since these images were packed; they are taken as they are")
            for path in (images, record):
                os.utime(path)
        else:
            self._write(images, record, items, packing, num_workers)
        return np.load(images, mmap_mode="r", allow_pickle=False), _read_rejected(record)

    def _write(
        self, images: Path, record: Path, items: Sequence[ImageItem], packing: Packing, num_workers: int
    ) -> None:
        """Pack, and let go of old packings; what became an artifact of one stays."""
        from rich.progress import track

        packed = pack_stream(items, packing, num_workers)
        with atomic_path(images) as temporary:
            with temporary.open("wb") as file:
                shown = track(packed, "pack images", len(items), transient=True)
                rejected = write_packed(file, shown, packing.shape)
            with atomic_path(record) as place:
                place.write_text(json.dumps(rejected), "utf-8")
        self._clean()

    def _clean(self) -> None:
        """Remove what is older than a day: a younger packing may be that of a run beside this one."""
        for path in self.folder.iterdir():
            try:
                if path.is_file() and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                # Another run was faster.
                continue


def _read_rejected(record: Path) -> list[tuple[int, str]]:
    return [(position, reason) for position, reason in json.loads(record.read_text("utf-8"))]


def _are_rejected(record: Path, items: Sequence[ImageItem], packing: Packing, num_workers: int) -> bool:
    """Whether the images that were rejected still are."""
    positions = [position for position, _ in _read_rejected(record)]
    if not positions:
        return True
    packed = pack_stream([items[position] for position in positions], packing, num_workers)
    return sum(1 for _ in takewhile(lambda one: isinstance(one, str), packed)) == len(positions)


def identify_packing(items: Sequence[ImageItem], packing: Packing) -> str:
    """A name for these images packed this way by this code, 32 hexadecimal digits.

    A file is known by its path, size and time of change, as `make` knows it: reading all of them would cost
    as much as packing. What is in memory is known by its content.
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
    except OSError as error:
        return sha256(repr((str(item), error.errno)).encode()).digest()
    return sha256(repr((str(item), status.st_size, status.st_mtime_ns)).encode()).digest()
