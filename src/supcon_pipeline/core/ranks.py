"""Processes that train together, and what passes between them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

# What the others of a step take at most, and what the first process takes alone, such as a validation. Who
# ends is noticed at once; this is for who hangs.
_STEP_LIMIT, _WORK_LIMIT = timedelta(minutes=30), timedelta(days=1)


class LostProcessError(ConnectionError):
    """Another of the processes has ended or does not answer."""


@dataclass(frozen=True)
class Ranks:
    """The processes that share each batch, as one of them sees them.

    A process alone passes nothing on. All others must call the same methods in the same order.

    Args:
        rank: number of this process, from 0.
        count: number of processes.
        seed: of what each process draws for itself.
        control: group for what is not on the device.
        patient: the same, for what takes the first process long.
    """

    rank: int = 0
    count: int = 1
    seed: int = 0
    control: Any = None
    patient: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that keeps and shows what is reached."""
        return self.rank == 0

    def part(self, size: int, rank: int | None = None) -> slice:
        """The part of a process, by default this one, of `size` rows: in order, of nearly equal size."""
        rank = self.rank if rank is None else rank
        least, num_larger = divmod(size, self.count)
        start = rank * least + min(rank, num_larger)
        return slice(start, start + least + (rank < num_larger))

    def share_of(self, size: int, rank: int) -> int:
        """How many of `size` rows are in the part of a process."""
        part = self.part(size, rank)
        return int(part.stop - part.start)

    def agree(self, value: Any, source: int = 0, is_patient: bool = False) -> Any:
        """The value of one process, for all; those of the others are ignored.

        Args:
            value: anything that pickles.
            source: rank of the process.
            is_patient: whether the others may wait long for it.

        Raises:
            LostProcessError: if a process has ended.
        """
        if self.count == 1:
            return value
        values = [value if self.rank == source else None]
        with _noticing_losses():
            dist.broadcast_object_list(values, source, self.patient if is_patient else self.control)
        return values[0]

    def gather(self, rows: Tensor, size: int) -> Tensor:
        """The rows of all processes, `size` in all, in order; the gradient of each is summed over them.

        Raises:
            LostProcessError: if a process has ended.
        """
        if self.count == 1:
            return rows
        gathered: Tensor = _Gathered.apply(rows, size, self)
        return gathered

    def collect(self, rows: Tensor, size: int) -> Tensor:
        """As `gather`, without a gradient."""
        if self.count == 1:
            return rows
        own = self._padded(rows, size)
        parts = [torch.empty_like(own) for _ in range(self.count)]
        with _noticing_losses():
            dist.all_gather(parts, own)
        return self._without_padding(parts, size)

    def bring(self, rows: Tensor, size: int) -> Tensor:
        """The rows of all processes, in order, at the first; elsewhere the own rows.

        Args:
            rows: of this process, on the CPU.
            size: of all rows.

        Raises:
            LostProcessError: if a process has ended.
        """
        if self.count == 1:
            return rows
        own = self._padded(rows, size)
        parts = [torch.empty_like(own) for _ in range(self.count)] if self.is_first else None
        with _noticing_losses():
            dist.gather(own, parts, group=self.patient)
        return rows if parts is None else self._without_padding(parts, size)

    def _padded(self, rows: Tensor, size: int) -> Tensor:
        """The rows with zeros behind them, as many in every process: a group exchanges equal sizes only."""
        padded = rows.new_zeros(-(-size // self.count), *rows.shape[1:])
        padded[: len(rows)] = rows
        return padded

    def _without_padding(self, parts: Sequence[Tensor], size: int) -> Tensor:
        return torch.cat([part[: self.share_of(size, rank)] for rank, part in enumerate(parts)])

    def scatter(self, rows: Tensor | None, shape: Sequence[int], dtype: torch.dtype, source: int) -> Tensor:
        """This process's part of the rows of one process.

        Args:
            rows: those of the source; ignored elsewhere.
            shape: of all rows.
            dtype: of the rows.
            source: rank of the process.

        Raises:
            LostProcessError: if a process has ended.
        """
        device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
        own = torch.zeros(-(-shape[0] // self.count), *shape[1:], dtype=dtype, device=device)
        parts = None
        if rows is not None and self.rank == source:
            parts = [torch.zeros_like(own) for _ in range(self.count)]
            for rank, part in enumerate(parts):
                share = rows[self.part(len(rows), rank)]
                part[: len(share)] = share
        with _noticing_losses():
            dist.scatter(own, parts, source)
        return own[: self.share_of(shape[0], self.rank)]

    def sum_(self, *tensors: Tensor) -> None:
        """Add to each tensor, in place, those of the other processes; all get the same bits.

        Raises:
            LostProcessError: if a process has ended.
        """
        if self.count == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            # One message for all of a kind.
            chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
            joined = torch.cat([tensor.flatten() for tensor in chosen])
            with _noticing_losses():
                dist.all_reduce(joined)
            for tensor, total in zip(chosen, joined.split([t.numel() for t in chosen]), strict=True):
                tensor.copy_(total.view(tensor.shape))

    def max_(self, tensor: Tensor) -> None:
        """Replace each element, in place, by its largest value in any process.

        Raises:
            LostProcessError: if a process has ended.
        """
        if self.count > 1:
            with _noticing_losses():
                dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def draw_apart(self, step: int) -> None:
        """Let this process draw other numbers than the first in a step, such as for dropout.

        They depend on seed, step and rank alone, so that a training goes on with what it would have drawn.
        """
        if not self.is_first:
            sequence = np.random.SeedSequence([self.seed, step, self.rank])
            torch.manual_seed(int(sequence.generate_state(1)[0]))


ALONE = Ranks()


class _Gathered(torch.autograd.Function):
    """All rows; the gradient of this process's own is the sum of what all processes have for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, size: int, ranks: Ranks) -> Tensor:
        ctx.size, ctx.ranks = size, ranks
        return ranks.collect(rows.detach(), size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        ctx.ranks.sum_(total)
        return total[ctx.ranks.part(ctx.size)], None, None


@contextmanager
def _noticing_losses() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        # An error of this process: it would happen again.
        raise
    except RuntimeError as error:
        raise LostProcessError(" ".join(str(error).split())) from error


def join_ranks(seed: int, attempt: int) -> Ranks:
    """Join the other processes that the launcher has started, by NCCL on GPUs, else by gloo.

    Args:
        seed: of what each process draws for itself.
        attempt: how often they were started before. The launcher keeps what they tell one another, and the
            addresses of those before would be found.
    """
    is_cuda = torch.cuda.is_available()
    if is_cuda:
        torch.cuda.set_device(_local_rank())
    with _noticing_losses():
        store, rank, count = next(rendezvous("env://"))
        store = PrefixStore(f"attempt {attempt}", store)
        backend = "nccl" if is_cuda else "gloo"
        dist.init_process_group(backend, None, _STEP_LIMIT, count, rank, store)
        groups = [dist.new_group(backend="gloo", timeout=limit) for limit in (_STEP_LIMIT, _WORK_LIMIT)]
    return Ranks(rank, count, seed, *groups)


def _local_rank() -> int:
    rank: int = dist.get_node_local_rank(fallback_rank=0)
    return rank
