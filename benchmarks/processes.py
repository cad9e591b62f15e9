"""A step of stage 1 and the loss alone, shared by one process and by several: time, memory, and the exchange.

Each case starts its own processes, which share the same cores, or have a GPU each where there are several.

    python benchmarks/processes.py
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.losses import supcon_loss
from supcon_pipeline.core.parameters.stages import Stage1Parameters
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.training.launching import launch
from supcon_pipeline.core.training.loop import train_step
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.stage import build_training

# The part of a dataset card that a stage uses.
CARD = {"mean": [0.5] * 3, "std": [0.25] * 3, "data_hash": "benchmark", "crop": "pad"}
DIM = 128


def measure(ranks: Ranks, options: argparse.Namespace, result: Path) -> None:
    """What one of the processes measures; the first leaves it in a file."""
    step = measure_step(ranks, options)
    found = {
        **step,
        "exchange_seconds": measure_exchange(ranks, options),
        "loss_seconds": measure_loss(ranks, options),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if ranks.is_first:
        result.write_text(json.dumps(found))


def seconds_of(work: Callable[[], object], num_repeats: int) -> float:
    """The median, without the first time, which warms up."""
    seconds = []
    for _ in range(num_repeats + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def measure_step(ranks: Ranks, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step with its views, and of the views alone."""
    with open("conf/base/parameters_stage1.yml") as file:
        raw = yaml.safe_load(file.read().replace("${seed}", "0"))["stage1"]
    raw["loader"] = {"batch_size": options.batch, "num_workers": 0}
    raw["backbone"] = {**raw["backbone"], "name": options.backbone}
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (options.batch + 8, 32, 32, 3), dtype=np.uint8)
    splits = np.array(["train"] * options.batch + ["validation"] * 8, dtype=object)
    data = LabelledImages(images, np.arange(len(images)) % 10, splits)
    stage = contrastive_stage(data, CARD, Stage1Parameters.model_validate(raw))
    training = build_training(stage, data, ranks)
    training.model.train()
    batches = (batch for epoch in range(10**9) for batch in training.loader.epoch(epoch))
    views = seconds_of(lambda: next(batches), options.repeats)
    step = seconds_of(lambda: train_step(training, next(batches)), options.repeats)
    training.loader.close()
    return {"step_seconds": step, "views_seconds": views}


def rows_of(num_rows: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(num_rows // 2, 2, DIM), dim=-1).to(pick_device())


def measure_exchange(ranks: Ranks, options: argparse.Namespace) -> float:
    """Seconds to gather projections, with their gradient, and to add up the gradient of a ResNet-18."""
    rows, gradient = rows_of(options.rows), torch.zeros(options.gradient, device=pick_device())

    def exchange() -> None:
        own = rows[ranks.part(len(rows))].clone().requires_grad_()
        ranks.gather(own, len(rows)).sum().backward()
        ranks.sum_(gradient)

    return seconds_of(exchange, options.repeats)


def measure_loss(ranks: Ranks, options: argparse.Namespace) -> float:
    """Seconds of the loss, forward and backward."""
    rows = rows_of(options.rows)
    labels = torch.arange(len(rows), device=rows.device) % 100

    def loss() -> None:
        own = rows[ranks.part(len(rows))].clone().requires_grad_()
        supcon_loss(ranks.gather(own, len(rows)), labels, 0.1, ranks).backward()

    return seconds_of(loss, options.repeats)


def run_case(options: argparse.Namespace) -> None:
    """One case, in this process or in as many as it says."""
    result = Path(options.result)
    if options.case == 1:
        measure(ALONE, options, result)
    else:
        launch(measure, options.case, "processes", 0, result.parent, options, result)


def case_of(count: int, options: argparse.Namespace) -> dict[str, float]:
    """What a case finds, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, __file__, *sys.argv[1:], "--case", str(count), "--result", str(result)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        subprocess.run(command, env=environment, check=True)
        found: dict[str, float] = json.loads(result.read_text())
    return {"processes": count, **found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2], help="of processes")
    parser.add_argument("--batch", type=int, default=256, help="images of two views")
    parser.add_argument("--rows", type=int, default=8192, help="of the loss alone")
    parser.add_argument("--gradient", type=int, default=11_200_000, help="numbers; by default of a ResNet-18")
    parser.add_argument("--backbone", default="resnet_narrow")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of all processes")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_case(options)
        return
    results = [case_of(count, options) for count in options.counts]
    table = Table("processes", "step s", "of it views s", "exchange s", "loss s", "MiB of one process")
    for row in results:
        names = ("step_seconds", "views_seconds", "exchange_seconds", "loss_seconds")
        table.add_row(str(row["processes"]), *(f"{row[name]:.3f}" for name in names), f"{row['mib']:,.0f}")
    Console(width=90).print(table)
    print("RESULT", json.dumps(results))


if __name__ == "__main__":
    main()
