"""Test metrics of an experiment over several seeds: contrastive, baseline, and what there was before.

python benchmarks/seeds.py --env base --seeds 0 1 2

The seed changes the split, the weights, the order of the images and the views. All seeds run in a project of
their own, which takes its configuration and raw data from this one. With `--folder` that project is kept, and
the same command resumes a run that was killed. The table has means and sample standard deviations; `RESULT`
has the value of each seed as well.
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

from rich import box
from rich.console import Console
from rich.table import Column, Table

ROOT = Path(__file__).parents[1]
MODELS = ("contrastive", "published", "baseline", "pixels")
# Entries that are not a single number measured on the test images.
LEFT_OUT = ("checkpoint", "intervals", "reliability", "per_class")


def headline_metrics(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Dotted name and value of each number of a metrics file."""
    for name, value in metrics.items():
        if isinstance(value, float):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict) and name not in LEFT_OUT:
            yield from headline_metrics(value, f"{prefix}{name}.")


def aggregate(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Values, mean and sample standard deviation (`None` for one seed) of each metric that every seed has."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    values = {name: [row[name] for row in rows] for name in names}
    return {
        name: {"values": column, "mean": mean(column), "stdev": stdev(column) if len(column) > 1 else None}
        for name, column in values.items()
    }


def link_project(project: Path) -> None:
    """Make a project with the configuration and raw data of this one, and no runs."""
    (project / "src").mkdir(parents=True, exist_ok=True)
    (project / "data").mkdir(exist_ok=True)
    for name in ("conf", "pyproject.toml", ".telemetry", "data/01_raw"):
        if (ROOT / name).exists() and not (project / name).exists():
            (project / name).symlink_to(ROOT / name)


def run_seed(project: Path, env: str, seed: int, params: str) -> dict[str, float]:
    """The metrics of a whole run with that seed, and the seconds this call took."""
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


def side_by_side(result: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Mean ± standard deviation of each metric, by metric and by the model of `MODELS` that it belongs to."""
    rows: dict[str, dict[str, str]] = {}
    for name, row in result.items():
        model, _, rest = name.partition(".")
        # Raw pixels are compared with the embedding.
        places = {name: (name, rest) for name in ("published", "baseline")}
        places["pixels"] = ("pixels", f"embedding.{rest}")
        model, metric = places.get(model, ("contrastive", name))
        spread = "" if row["stdev"] is None else f" ± {row['stdev']:.4f}"
        rows.setdefault(metric, {})[model] = f"{row['mean']:.4f}{spread}"
    return rows


def show(result: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table in Markdown, the mean time of a run, and the result."""
    metrics = {name: row for name, row in result.items() if name != "seconds"}
    rows = side_by_side(metrics)
    models = [model for model in MODELS if any(model in cells for cells in rows.values())]
    table = Table(Column("metric", no_wrap=True), *models, box=box.MARKDOWN)
    for name, cells in rows.items():
        table.add_row(name, *(cells.get(model, "") for model in models))
    Console(width=120).print(table)
    print(f"{result['seconds']['mean']:.0f} seconds per run")
    print("RESULT", json.dumps(result))


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", default="base", help="the experiment: a folder of conf")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--params", default="", help="more parameters, as for `kedro run`; paths must be absolute"
    )
    parser.add_argument("--folder", type=Path, help="keep the runs in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = (arguments.folder or Path(folder)).resolve()
        link_project(project)
        rows = [run_seed(project, arguments.env, seed, arguments.params) for seed in arguments.seeds]
    show(aggregate(rows))


if __name__ == "__main__":
    main()
