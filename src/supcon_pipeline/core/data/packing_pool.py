"""Packing in worker processes, as a stream."""

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Self

import numpy as np

from supcon_pipeline.core.data.images import ImageItem
from supcon_pipeline.core.data.packing import Packed, Packing
from supcon_pipeline.core.data.workers import prepare_worker
from supcon_pipeline.core.messages import InputError

# Images per task: enough to hide the transfer between processes, few enough to hold in memory.
_CHUNK_IMAGES, _CHUNK_BYTES = 64, 8 * 2**20
# Seconds for an image, far more than any takes. A worker that hangs, for example on a network disk, would
# else be waited for without end.
_TIME_LIMIT = 60


def pack_stream(items: Sequence[ImageItem], packing: Packing, num_workers: int) -> Iterator[Packed]:
    """Each image at storage size, or the reason why not, in order, with only a few in memory at a time.

    Args:
        items: the images; read one after the other.
        packing: how they are stored.
        num_workers: processes that decode and resize. An image that crashes or hangs its decoder is rejected;
            with 0, this process decodes, and crashes or hangs with it.

    Raises:
        InputError: if a worker is killed before it has any work.
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
    with PackingPool(packing, num_workers) as workers:
        for chunk in chunks:
            workers.submit(chunk)
            if len(workers.waiting) > 2 * num_workers:
                yield from workers.take()
        while workers.waiting:
            yield from workers.take()


class PackingPool:
    """Worker processes that pack chunks of images and are restarted if one is killed.

    Args:
        packing: how images are stored.
        num_workers: number of processes.
    """

    def __init__(self, packing: Packing, num_workers: int):
        self.packing, self.num_workers = packing, num_workers
        self.pool = _start_pool(num_workers)
        self.waiting: deque[tuple[list[ImageItem], Future[list[Packed]]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # Nobody waits for what they are doing.
            _kill(self.pool)
        self.pool.shutdown(cancel_futures=True)

    def submit(self, chunk: list[ImageItem]) -> None:
        """Queue a chunk for packing."""
        try:
            future = self.pool.submit(self.packing.pack_all, chunk)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self.waiting.append((chunk, future))

    def take(self) -> list[Packed]:
        """The packed images of the oldest chunk in the queue."""
        chunk, future = self.waiting.popleft()
        try:
            return future.result(_TIME_LIMIT * len(chunk))
        except (BrokenProcessPool, TimeoutError):
            # Every waiting chunk has lost its process, and nothing says whose image was to blame.
            _kill(self.pool)
            self.pool.shutdown()
            packed = _pack_alone(chunk, self.packing)
            self.pool = _start_pool(self.num_workers)
            lost, self.waiting = self.waiting, deque()
            for waiting, _ in lost:
                self.submit(waiting)
            return packed


def _start_pool(num_workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: this process may have library threads that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=prepare_worker)
    try:
        pool.submit(_pack_nothing).result()
    except BrokenProcessPool as error:
        raise InputError(
            f"num_workers must leave memory for every process, got {num_workers} and one was killed; "
            "lower it, 0 needs the least memory"
        ) from error
    return pool


def _pack_nothing() -> None:
    """For a process that can do it, which has started and loaded the code of its tasks."""


def _pack_alone(chunk: list[ImageItem], packing: Packing) -> list[Packed]:
    """Pack one image at a time, to find the one that kills its process and lose no other."""
    packed: list[Packed] = []
    while len(packed) < len(chunk):
        with _start_pool(1) as pool:
            try:
                for item in chunk[len(packed) :]:
                    packed.append(pool.submit(packing.pack, item).result(_TIME_LIMIT))
            except BrokenProcessPool:
                packed.append("the process that decoded it was killed, by its decoder or for lack of memory")
            except TimeoutError:
                packed.append(f"it was not decoded within {_TIME_LIMIT} seconds")
                _kill(pool)
    return packed


def _kill(pool: ProcessPoolExecutor) -> None:
    """End its processes at once, whatever they do; Python 3.14 has `kill_workers` for this."""
    for process in list((pool._processes or {}).values()):
        process.kill()
