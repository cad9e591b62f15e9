"""Seconds, memory and errors of the contrastive loss on the device that trains, for `gpu.py`."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from benchmarks.loss import DIM, NUM_CLASSES, TEMPERATURE, WAYS, loss_function
from torch import Tensor

from supcon_pipeline.core.device import pick_device, wait_for
from supcon_pipeline.core.losses import supcon, supcon_loss

Save = Callable[[Mapping[str, Any]], None]


def seconds_of(work: Callable[[], object], num_repeats: int) -> float:
    """The median, without the first time, which warms up."""
    seconds = []
    for _ in range(num_repeats + 1):
        wait_for(pick_device())
        start = time.perf_counter()
        work()
        wait_for(pick_device())
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def peak_rate(size: int) -> float:
    """Operations per second of a large float32 product."""
    matrix = torch.randn(size, size, device=pick_device())
    return 2 * size**3 / seconds_of(lambda: matrix @ matrix, 5)


def measure_ways(counts: Sequence[int], tiles: Sequence[int], peak: float, save: Save) -> None:
    """Each number of rows, by this project's loss with each size of tile and by the others."""
    tile_name = "CPU_TILE" if pick_device().type == "cpu" else "GPU_TILE"
    chosen = getattr(supcon, tile_name)
    for num_rows in counts:
        rows, labels = random_projections(num_rows)
        for tile in tiles:
            setattr(supcon, tile_name, tile)
            found = measure_loss(loss_function("ours"), rows, labels)
            # Two full matrices of similarities, one for the value and one for the gradient.
            share = 4 * num_rows**2 * DIM / found["seconds"] / peak
            save({"case": f"{num_rows:,} rows, tile {tile:,}", **found, "share_of_peak": share})
        setattr(supcon, tile_name, chosen)
        for way in WAYS[1:]:
            save({"case": f"{num_rows:,} rows, {way}", **measure_loss(loss_function(way), rows, labels)})
    measure_precisions(*random_projections(counts[0]), save)


def random_projections(num_rows: int) -> tuple[Tensor, Tensor]:
    """Two views of images, and the class of each."""
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(num_rows // 2, 2, DIM), dim=-1)
    return rows.to(pick_device()), torch.randint(0, NUM_CLASSES, (num_rows // 2,)).to(pick_device())


def measure_loss(
    loss: Callable[[Tensor, Tensor], Tensor], rows: Tensor, labels: Tensor
) -> dict[str, float | None]:
    """Seconds of value and gradient, and the memory on a GPU beside the rows; None where it is too short."""
    own = rows.clone().requires_grad_()
    before = torch.cuda.memory_allocated()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        seconds = seconds_of(lambda: loss(own, labels).backward(), 3)
    except torch.cuda.OutOfMemoryError:
        return {"seconds": None, "mib": None}
    finally:
        torch.cuda.empty_cache()
    return {"seconds": seconds, "mib": (torch.cuda.max_memory_allocated() - before) / 2**20}


def measure_precisions(rows: Tensor, labels: Tensor, save: Save) -> None:
    """Errors of value and gradient against float64, relative, with products in float32 and in TF32."""
    exact = value_and_gradient(rows.double(), labels)
    for setting, name in (("highest", "float32"), ("high", "TF32")):
        torch.set_float32_matmul_precision(setting)
        found = value_and_gradient(rows, labels)
        value, gradient = (
            float((one - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True)
        )
        seconds = seconds_of(lambda: value_and_gradient(rows, labels), 3)
        case = f"{2 * len(rows):,} rows, products in {name}"
        save({"case": case, "seconds": seconds, "value_error": value, "gradient_error": gradient})
    torch.set_float32_matmul_precision("highest")


def value_and_gradient(projections: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of this project's loss, in double precision."""
    own = projections.clone().requires_grad_()
    loss = supcon_loss(own, labels, TEMPERATURE)
    loss.backward()
    return loss.detach().double(), own.grad.double()
