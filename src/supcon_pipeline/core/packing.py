"""Packing: images of any kind, as a stream, into one file of equal squares."""

import json
import logging
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from supcon_pipeline.core.decoding import decode_image
from supcon_pipeline.core.images import Crop, ImageItem, pack_image

logger = logging.getLogger(__name__)

# Images that a process takes at a time: enough to hide the way there and back, few enough to hold.
_CHUNK_IMAGES, _CHUNK_BYTES = 64, 8 * 2**20

# A packing that nobody has asked for so long, in seconds, is let go of.
_KEPT_SECONDS = 24 * 60 * 60

Packed = np.ndarray | str
AtomicPath = Callable[[Path], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Packing:
    """How images are stored.

    Args:
        image_size: height and width.
        num_channels: 1 or 3.
        crop: how an image that is not square becomes square, as for `pack_image`.
    """

    image_size: int
    num_channels: int
    crop: Crop

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return self.image_size, self.image_size, self.num_channels

    @property
    def least_side(self) -> int:
        """What a large JPEG may be decoded down to: sharp enough to be shrunk by area."""
        return 2 * self.image_size

    def pack(self, item: ImageItem) -> Packed:
        """The image at storage size, or why there is none."""
        try:
            pixels = item if isinstance(item, np.ndarray) else decode_image(item, self.least_side)
            return pack_image(pixels, self.image_size, self.num_channels, self.crop)
        except Exception as error:
            # Whatever a decoder stumbles over is the file's fault, and one file must not end the others.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return " ".join(reason.split())

    def pack_all(self, items: Sequence[ImageItem]) -> list[Packed]:
        """`pack` of each; what a worker process does."""
        return [self.pack(item) for item in items]


def pack_stream(items: Sequence[ImageItem], packing: Packing, num_workers: int) -> Iterator[Packed]:
    """Each image at storage size or why there is none, in order, never more than a few in memory.

    Args:
        items: what is packed; taken one after the other.
        packing: how.
        num_workers: processes that decode and resize; 0 does it in this one, which an image that crashes its
            decoder ends. In a process of its own such an image is rejected.

    Raises:
        ValueError: where a process is killed before it has anything to do.
    """
    size = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // int(np.prod(packing.shape))))
    chunks = (
        [items[index] for index in range(start, min(start + size, len(items)))]
        for start in range(0, len(items), size)
    )
    if not num_workers:
        for chunk in chunks:
            yield from packing.pack_all(chunk)
        return
    with _Workers(packing, num_workers) as workers:
        for chunk in chunks:
            workers.submit(chunk)
            if len(workers.waiting) > 2 * num_workers:
                yield from workers.take()
        while workers.waiting:
            yield from workers.take()


class _Workers:
    """Processes that pack chunks of images, and are started again where one was killed.

    Args:
        packing: how.
        num_workers: how many.
    """

    def __init__(self, packing: Packing, num_workers: int):
        self.packing, self.num_workers = packing, num_workers
        self.pool = _start_pool(num_workers)
        self.waiting: deque[tuple[list[ImageItem], Future[list[Packed]]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def submit(self, chunk: list[ImageItem]) -> None:
        """Have a chunk packed."""
        try:
            future = self.pool.submit(self.packing.pack_all, chunk)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self.waiting.append((chunk, future))

    def take(self) -> list[Packed]:
        """The chunk that has waited longest."""
        chunk, future = self.waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            # All that wait have lost their process, and none says whose image it was.
            self.pool.shutdown()
            packed = _pack_alone(chunk, self.packing)
            self.pool = _start_pool(self.num_workers)
            lost, self.waiting = self.waiting, deque()
            for waiting, _ in lost:
                self.submit(waiting)
            return packed


def _start_pool(num_workers: int) -> ProcessPoolExecutor:
    # Spawned and not forked: this process may hold threads of libraries that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_use_one_thread)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise ValueError(
            f"num_workers must leave memory for all, got {num_workers} and one was killed; "
            "lower it, 0 needs the least"
        ) from error
    return pool


def _use_one_thread() -> None:
    """Each process has a core: threads of its own would take those of the others."""
    import cv2

    cv2.setNumThreads(0)


def _pack_alone(chunk: list[ImageItem], packing: Packing) -> list[Packed]:
    """Each image by itself in one process, so that one that ends it is known and takes no other with it."""
    packed: list[Packed] = []
    while len(packed) < len(chunk):
        with _start_pool(1) as pool:
            try:
                for item in chunk[len(packed) :]:
                    packed.append(pool.submit(packing.pack, item).result())
            except BrokenProcessPool:
                packed.append("the process that decoded it was killed, by its decoder or for want of memory")
    return packed


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
        atomic_path: gives a temporary path that takes the place of its target when all is written.
    """

    def __init__(self, folder: Path, atomic_path: AtomicPath):
        self.folder, self.atomic_path = folder, atomic_path

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
        with self.atomic_path(images) as temporary:
            with temporary.open("wb") as file:
                shown = track(packed, "pack images", len(items), transient=True)
                rejected = write_packed(file, shown, packing.shape)
            with self.atomic_path(record) as place:
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

    digest = sha256(json.dumps([asdict(packing), PIL.__version__, cv2.__version__]).encode())
    for source in ("decoding.py", "images.py", "packing.py"):
        digest.update(Path(__file__).with_name(source).read_bytes())
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
