"""Time and memory of the supervised contrastive loss, forward and backward, compared with the two usual ways.

python benchmarks/loss.py --repeats 5

Each case runs in its own process, with 2 threads, float32 and 128 dimensions; memory is the peak of resident
memory above that of the imports. Processes of the three ways alternate, because other programs share the
machine. The time of a process is that of its best step, and the table has the median over the processes.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

WAYS = ("ours", "plain formula", "pytorch-metric-learning")
DIM, NUM_CLASSES, TEMPERATURE, NUM_THREADS = 128, 100, 0.1, 2


def loss_function(way: str) -> Callable:
    """A function of projections [batch, 2, dim] and labels [batch]."""
    import torch

    if way == "ours":
        from supcon_pipeline.core.losses import supcon_loss

        return lambda projections, labels: supcon_loss(projections, labels, TEMPERATURE)

    def plain_formula(projections: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        rows, row_labels = projections.flatten(0, 1), labels.repeat_interleave(2)
        is_self = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        is_positive = (row_labels[:, None] == row_labels[None, :]) & ~is_self
        similarity = rows @ rows.T / TEMPERATURE
        log_normaliser = similarity.masked_fill(is_self, -torch.inf).logsumexp(dim=1)
        num_positives = is_positive.sum(dim=1)
        positive_mean = (similarity * is_positive).sum(dim=1) / num_positives.clamp(min=1)
        return (log_normaliser - positive_mean)[num_positives > 0].mean()

    if way == "plain formula":
        return plain_formula
    from pytorch_metric_learning.losses import SupConLoss

    library = SupConLoss(temperature=TEMPERATURE)
    return lambda projections, labels: library(projections.flatten(0, 1), labels.repeat_interleave(2))


def resident_mib(field: str) -> float:
    """Resident memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(way: str, num_rows: int, num_steps: int) -> dict[str, float]:
    """Seconds of the best step, peak memory above the imports in MiB, and the loss."""
    import torch

    torch.set_num_threads(NUM_THREADS)
    torch.manual_seed(0)
    function = loss_function(way)
    # Starting threads, the allocator and the linear algebra libraries is not part of the loss.
    small = torch.nn.functional.normalize(torch.randn(64, 2, DIM), dim=-1).requires_grad_()
    function(small, torch.arange(64) % 8).backward()
    bare = resident_mib("VmRSS")
    rows = torch.nn.functional.normalize(torch.randn(num_rows // 2, 2, DIM), dim=-1).requires_grad_()
    labels = torch.randint(0, NUM_CLASSES, (num_rows // 2,))
    seconds = []
    for _ in range(num_steps):
        rows.grad = None
        start = time.perf_counter()
        loss = function(rows, labels)
        loss.backward()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "mib": resident_mib("VmHWM") - bare, "loss": loss.item()}


def measure_apart(way: str, num_rows: int, num_steps: int) -> dict[str, float]:
    """`measure` in its own process."""
    command = [sys.executable, __file__, "--case", way, str(num_rows), str(num_steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(
    ways: list[str], compared_rows: list[int], curve_rows: list[int], num_repeats: int
) -> dict[tuple[str, int], dict[str, float]]:
    """The median of each number over the repeats, by way and number of rows; the curve is for ours only."""
    cases = [(way, num_rows, 3) for num_rows in compared_rows for way in ways]
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(num_repeats):
        for way, num_rows, num_steps in cases:
            runs.setdefault((way, num_rows), []).append(measure_apart(way, num_rows, num_steps))
    for num_rows in curve_rows:
        runs["ours", num_rows] = [measure_apart("ours", num_rows, 1)]
    return {
        case: {name: median(run[name] for run in group) for name in group[0]} for case, group in runs.items()
    }


def main() -> None:
    """Measure the given case, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beside", nargs="*", choices=WAYS[1:], default=WAYS[1:])
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--rows-alone", type=int, nargs="*", default=[16384, 32768, 65536])
    parser.add_argument("--case", nargs=3, metavar=("WAY", "ROWS", "STEPS"))
    arguments = parser.parse_args()
    if arguments.case:
        way, num_rows, num_steps = arguments.case
        print(json.dumps(measure(way, int(num_rows), int(num_steps))))
        return
    results = measure_all(
        [WAYS[0], *arguments.beside], arguments.rows, arguments.rows_alone, arguments.repeats
    )
    table = Table(
        "rows", "way", "seconds", "times ours", "MiB", "times ours", "loss", title="forward + backward"
    )
    figures = []
    for (way, num_rows), figure in sorted(results.items(), key=lambda item: item[0][1]):
        ours = results["ours", num_rows]
        ratios = {name: figure[name] / ours[name] for name in ("seconds", "mib")}
        figures.append({"way": way, "rows": num_rows, **figure, "ratios": ratios})
        numbers = f"{figure['seconds']:.3f}", f"{ratios['seconds']:.1f}", f"{figure['mib']:.0f}"
        table.add_row(f"{num_rows:,}", way, *numbers, f"{ratios['mib']:.1f}", f"{figure['loss']:.5f}")
    Console(width=100).print(table)
    print("RESULT", json.dumps(figures))


if __name__ == "__main__":
    main()
