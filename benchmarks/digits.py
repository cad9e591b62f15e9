"""Test metrics of the embedded default over seeds: splits, weights, order and views all change with the seed.

python benchmarks/digits.py --seeds 0 1 2
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import reduce
from operator import getitem
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

METRICS = (
    "embedding.precision_at_1",
    "embedding.mean_average_precision_at_r",
    "embedding.knn_accuracy",
    "projection.precision_at_1",
    "classifier.accuracy",
    "classifier.macro_f1",
    "baseline.embedding.precision_at_1",
    "baseline.embedding.mean_average_precision_at_r",
    "baseline.embedding.knn_accuracy",
    "baseline.classifier.accuracy",
    "baseline.classifier.macro_f1",
    "pixels.precision_at_1",
)


def run_seed(project: Path, seed: int) -> dict[str, float]:
    """The metrics of a whole run with that seed, and its seconds."""
    command = [sys.executable, "-m", "kedro", "run", "--params", f"seed={seed}"]
    start = time.perf_counter()
    environment = {**os.environ, "SUPCON_RUN_ID": f"seed-{seed}"}
    subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    path = project / f"data/08_reporting/base/metrics.json/seed-{seed}/metrics.json"
    metrics = json.loads(path.read_text())
    return {name: reduce(getitem, name.split("."), metrics) for name in METRICS} | {"seconds": seconds}


def main() -> None:
    """Run all seeds in a copy of the project and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "src").mkdir()
        for name in ("conf", "pyproject.toml"):
            (project / name).symlink_to(root / name)
        rows = [run_seed(project, seed) for seed in seeds]
    table = Table("", *(f"seed {seed}" for seed in seeds), "mean", "spread")
    result = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = stdev(values) if len(values) > 1 else 0.0
        table.add_row(name, *(f"{value:.4f}" for value in values), f"{mean(values):.4f}", f"{spread:.4f}")
        result[name] = {"values": values, "mean": mean(values), "stdev": spread}
    Console(width=100).print(table)
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    main()
