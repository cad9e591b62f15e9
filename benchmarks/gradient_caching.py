"""Peak memory of a training step by batch size: plain, and in micro-batches with gradient caching.

Each case runs in its own process, under a memory limit that the plain step exceeds.

    python benchmarks/gradient_caching.py
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table


def run_step(batch_size: int, micro_batch_size: int | None) -> dict[str, float]:
    """One step of `resnet_narrow` on two views of 32 pixels, and how much it raises the peak of memory."""
    from supcon_pipeline.core.losses import supcon_loss
    from supcon_pipeline.core.models.encoder import build_contrastive_model
    from supcon_pipeline.core.training.loop import backward
    from supcon_pipeline.core.training.precision import choose_precision
    from supcon_pipeline.core.training.state import Training
    from supcon_pipeline.core.views.loading import Batch

    torch.manual_seed(0)
    mean = [0.5] * 3
    model = build_contrastive_model("resnet_narrow", "small_image", mean, mean, hidden_dim=128, dim=64)
    views = torch.randint(0, 256, (batch_size, 2, 32, 32, 3), dtype=torch.uint8)
    batch = Batch(views, torch.arange(batch_size) % 10)

    def criterion(outputs: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        return supcon_loss(outputs["projection"].unflatten(0, batch.views.shape[:2]), batch.labels)

    training = Training(
        model=model,
        criterion=criterion,
        loader=None,
        optimizer=None,
        schedule=None,
        precision=choose_precision("float32", torch.device("cpu")),
        micro_batch_size=micro_batch_size,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    backward(training, batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": (peak - before) / 1024, "seconds": time.perf_counter() - start}


def measure(batch_size: int, micro_batch_size: int | None, limit_gib: float) -> dict[str, float] | None:
    """A case in its own process; None if it exceeds the limit."""
    command = [sys.executable, __file__, "--case", str(batch_size), str(micro_batch_size or 0)]

    def limit() -> None:
        size = int(limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))

    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    if done.returncode and "memory" not in done.stderr.lower():
        raise RuntimeError(done.stderr)
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-gib", type=float, default=1.25, help="memory of each process")
    parser.add_argument("--plain", type=int, nargs="*", default=[256, 512, 1024], help="batch sizes")
    parser.add_argument("--cached", type=int, nargs="+", default=[256, 1024, 4096], help="in micro-batches")
    parser.add_argument("--micro", type=int, default=64, help="images per micro-batch")
    parser.add_argument("--case", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_step(arguments.case[0], arguments.case[1] or None)))
        return
    table = Table("batch", "micro-batch", "peak MiB", "seconds", "ms per image")
    results = []
    cases = [(size, None) for size in arguments.plain] + [
        (size, arguments.micro) for size in arguments.cached
    ]
    for batch_size, micro in cases:
        found = measure(batch_size, micro, arguments.limit_gib)
        results.append({"batch": batch_size, "micro": micro, **(found or {})})
        if found is None:
            cells = [f"more than {arguments.limit_gib:g} GiB", "", ""]
        else:
            per_image = 1000 * found["seconds"] / batch_size
            cells = [f"{found['mib']:,.0f}", f"{found['seconds']:.1f}", f"{per_image:.1f}"]
        table.add_row(str(batch_size), str(micro or "none"), *cells)
    Console(width=90).print(table)
    print("RESULT", json.dumps({"limit_gib": arguments.limit_gib, "cases": results}))


if __name__ == "__main__":
    main()
