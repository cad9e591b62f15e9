"""Test metrics of an experiment over seeds: splits, weights, order and views all change with the seed.

python benchmarks/seeds.py --env base --seeds 0 1 2

Each seed is a whole run in a project of its own, which takes configuration and raw data from this one. With
`--folder` it is kept, and a run that was killed goes on when the same command is given again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Column, Table

ROOT = Path(__file__).parents[1]
# What is no single number of the test images.
LEFT_OUT = ("checkpoint", "intervals", "reliability", "per_class")


def headline_metrics(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Dotted name and value of each number of a metrics file."""
    for name, value in metrics.items():
        if isinstance(value, float):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict) and name not in LEFT_OUT:
            yield from headline_metrics(value, f"{prefix}{name}.")


def aggregate(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Values, mean and sample standard deviation (none of one seed) of each metric that every seed has."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    values = {name: [row[name] for row in rows] for name in names}
    return {
        name: {"values": column, "mean": mean(column), "stdev": stdev(column) if len(column) > 1 else None}
        for name, column in values.items()
    }


def link_project(project: Path) -> None:
    """A project with the configuration and the raw data of this one, and no runs."""
    (project / "src").mkdir(parents=True, exist_ok=True)
    (project / "data").mkdir(exist_ok=True)
    for name in ("conf", "pyproject.toml", ".telemetry", "data/01_raw"):
        if (ROOT / name).exists() and not (project / name).exists():
            (project / name).symlink_to(ROOT / name)


def run_seed(project: Path, env: str, seed: int, params: str) -> dict[str, float]:
    """The metrics of a whole run with that seed, and the seconds that this took now."""
    given = f"seed={seed},{params}" if params else f"seed={seed}"
    command = [sys.executable, "-m", "kedro", "run", "--env", env, "--params", given]
    start = time.perf_counter()
    environment = {**os.environ, "SUPCON_RUN_ID": f"seed-{seed}"}
    subprocess.run(
        [*command, "--only-missing-outputs"],
        cwd=project,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - start
    path = project / f"data/08_reporting/{env}/metrics.json/seed-{seed}/metrics.json"
    return dict(headline_metrics(json.loads(path.read_text()))) | {"seconds": seconds}


def show(seeds: Sequence[int], result: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table and the result."""
    heads = (f"seed {seed}" for seed in seeds)
    table = Table(Column(no_wrap=True), *heads, "mean", "standard deviation")
    for name, row in result.items():
        spread = "" if row["stdev"] is None else f"{row['stdev']:.4f}"
        table.add_row(name, *(f"{value:.4f}" for value in row["values"]), f"{row['mean']:.4f}", spread)
    Console(width=90 + 10 * len(seeds)).print(table)
    print("RESULT", json.dumps(result))


def main() -> None:
    """Run all seeds and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", default="base", help="the experiment: a folder of conf")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--params", default="", help="others for all runs, as `kedro run` takes them; paths absolute"
    )
    parser.add_argument("--folder", type=Path, help="where the runs are kept; nowhere if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = (arguments.folder or Path(folder)).resolve()
        link_project(project)
        rows = [run_seed(project, arguments.env, seed, arguments.params) for seed in arguments.seeds]
    show(arguments.seeds, aggregate(rows))


if __name__ == "__main__":
    main()
