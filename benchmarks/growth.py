"""Time, memory and disk of each step of `kedro run`, by number of images.

python benchmarks/growth.py --counts 10000 100000 1000000

Made images of 32 pixels in up to 1,000 classes, ten of each or more, and trainings of one epoch; everything
else is as in the default. Each number of images has a project and a process of its own. An exponent says how
seconds or disk grow from the size before: 1 is as the number of images, 2 as its square. Memory is the peak
of the resident memory of all processes while the step runs, with what earlier steps have left and the files
that are mapped; its growth is in KiB per image. Disk is what the artifacts of the step take.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from supcon_pipeline.core.data.images import RawImages
from supcon_pipeline.datasets.image_source import ImageSource

ROOT = Path(__file__).parents[1]
ENV, RUN_ID = "growth", "growth"
SIZE, PATTERN = 32, 4
# Below these, an exponent is noise.
LEAST = {"seconds": 0.5, "disk_mib": 0.1}
CATALOG = (
    "raw_images: {{type: benchmarks.growth.MadeImagesDataset, count: {count}, num_classes: {classes}}}\n"
)
PARAMETERS = """
stage1:
  transforms: crop_and_flip
  schedule: {{num_epochs: 1, warmup_epochs: 0}}
stage2:
  transforms: crop_and_flip
  schedule: {{num_epochs: 1, warmup_epochs: 0}}
visualization:
  tsne: {{perplexity: {perplexity}}}
"""


class MadeImages(Sequence[np.ndarray]):
    """A coarse pattern for each class, and noise: made on demand, so that they take no memory."""

    def __init__(self, labels: np.ndarray, num_classes: int):
        self.labels = labels
        shape = (num_classes, PATTERN, PATTERN, 3)
        self.patterns = np.random.default_rng(0).integers(64, 192, shape).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        scale = SIZE // PATTERN
        noise = np.frombuffer(np.random.default_rng(index).bytes(SIZE * SIZE * 3), np.uint8) // 4
        pattern = self.patterns[self.labels[index]].repeat(scale, axis=0).repeat(scale, axis=1)
        image: np.ndarray = pattern + noise.reshape(pattern.shape)
        return image


class MadeImagesDataset(ImageSource):
    """Made images in classes of equal size."""

    def __init__(self, count: int, num_classes: int):
        self.count, self.num_classes = count, num_classes

    def load(self) -> RawImages:
        """The labels; no image is made yet."""
        labels = np.arange(self.count) % self.num_classes
        return RawImages(
            images=MadeImages(labels, self.num_classes),
            labels=labels,
            class_names=[f"class {label:04d}" for label in range(self.num_classes)],
            ids=[f"made-{index:08d}" for index in range(self.count)],
            source="benchmarks.growth",
        )

    def _describe(self) -> dict[str, Any]:
        return {"count": self.count, "num_classes": self.num_classes}


def make_project(folder: Path, count: int, most_classes: int) -> None:
    """A project whose experiment `growth` has so many images."""
    (folder / "src").mkdir(parents=True)
    shutil.copytree(ROOT / "conf", folder / "conf")
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder)
    experiment = folder / "conf" / ENV
    experiment.mkdir()
    classes = max(2, min(most_classes, count // 10))
    (experiment / "catalog.yml").write_text(CATALOG.format(count=count, classes=classes))
    perplexity = min(30, count // 4)
    (experiment / "parameters.yml").write_text(PARAMETERS.format(perplexity=perplexity))


def resident_bytes(pid: int) -> int:
    """The resident memory of a process and all its children; 0 where they are gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = {
            int(child)
            for file in Path(f"/proc/{pid}/task").glob("*/children")
            for child in file.read_text().split()
        }
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, children))


class MemoryLog:
    """The resident memory of a process and its children, many times a second.

    Args:
        pid: of the process.
        interval: seconds between two looks.
    """

    def __init__(self, pid: int, interval: float = 0.05):
        self.samples: list[tuple[float, int]] = []
        self._pid, self._interval, self._is_done = pid, interval, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_done.wait(self._interval):
            self.samples.append((time.time(), resident_bytes(self._pid)))

    def close(self) -> None:
        """Stop watching."""
        self._is_done.set()
        self._thread.join()

    def peak_mib(self, start: float, end: float) -> float:
        """The highest from start to end, or right after where no look fell between."""
        until = min((moment for moment, _ in self.samples if moment >= end), default=math.inf)
        found = [taken for moment, taken in self.samples if start <= moment <= until]
        return max(found, default=0) / 2**20


def disk_by_artifact(project: Path) -> Counter[str]:
    """Bytes of each artifact of the run."""
    sizes: Counter[str] = Counter()
    for folder in project.glob(f"data/*/{ENV}/**/{RUN_ID}"):
        for path in folder.rglob("*"):
            if path.is_file():
                sizes[folder.parent.name.partition(".")[0]] += path.stat().st_size
    return sizes


def read_steps(project: Path, memory: MemoryLog) -> dict[str, dict[str, float]]:
    """Seconds, memory and disk of each node, from the record of the run."""
    (record,) = project.glob(f"data/08_reporting/{ENV}/run_record.json/{RUN_ID}/run_record.*.json")
    sizes, steps = disk_by_artifact(project), {}
    for name, node in json.loads(record.read_text())["nodes"].items():
        start = datetime.fromisoformat(node["started"]).timestamp()
        steps[name] = {
            "seconds": node["seconds"],
            "mib": memory.peak_mib(start, start + node["seconds"]),
            "disk_mib": sum(sizes[output] for output in node["outputs"]) / 2**20,
        }
    return steps


def run_count(project: Path, given: Sequence[str]) -> dict[str, dict[str, float]]:
    """Run the project with more arguments of `kedro run`; gives each node by its name, and `all` of them."""
    command = [sys.executable, "-m", "kedro", "run", "--env", ENV, *given]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "SUPCON_RUN_ID": RUN_ID, "PYTHONPATH": paths}
    start = time.perf_counter()
    with (project / "output.txt").open("w") as output:
        running = subprocess.Popen(
            command, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        memory = MemoryLog(running.pid)
        running.wait()
    memory.close()
    if running.returncode:
        sys.exit((project / "output.txt").read_text()[-2000:])
    steps = read_steps(project, memory)
    whole = {
        "seconds": time.perf_counter() - start,
        "mib": memory.peak_mib(0, math.inf),
        "disk_mib": sum(step["disk_mib"] for step in steps.values()),
    }
    return {"all": whole, **steps}


def exponent(counts: Sequence[int], values: Sequence[float], least: float) -> str:
    """The power of the count by which the last value has grown; nothing where that cannot be told."""
    if len(counts) < 2 or min(values[-2:]) < least:
        return ""
    return f"{math.log(values[-1] / values[-2]) / math.log(counts[-1] / counts[-2]):.2f}"


def kib_per_image(counts: Sequence[int], mib: Sequence[float]) -> str:
    """What each image adds between the last two counts."""
    if len(counts) < 2:
        return ""
    return f"{1024 * (mib[-1] - mib[-2]) / (counts[-1] - counts[-2]):.1f}"


def show(results: dict[int, dict[str, dict[str, float]]]) -> None:
    """Print the table in Markdown: a row for each node, the slowest first, and the result."""
    counts = list(results)
    last = results[counts[-1]]
    heads = (
        *(*(f"{count:,}: s" for count in counts), "exponent"),
        *(*(f"{count:,}: MiB" for count in counts), "KiB per image"),
        *(*(f"{count:,}: MiB on disk" for count in counts), "exponent"),
    )
    table = Table("step", *heads, box=box.MARKDOWN)
    for name in sorted(last, key=lambda name: -last[name]["seconds"]):
        cells = []
        for column in ("seconds", "mib", "disk_mib"):
            values = [results[count][name][column] for count in counts]
            cells += [f"{value:,.1f}" for value in values]
            is_memory = column == "mib"
            cells.append(
                kib_per_image(counts, values) if is_memory else exponent(counts, values, LEAST[column])
            )
        table.add_row(name, *cells)
    Console(width=220).print(table)
    print("RESULT", json.dumps(results))


def main() -> None:
    """Run every number of images and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--classes", type=int, default=1000, help="at most; ten images of each, or more")
    parser.add_argument("--pipelines", default="__default__", help="what to run, as for `kedro run`")
    parser.add_argument("--params", default="", help="more parameters, as for `kedro run`")
    parser.add_argument("--folder", type=Path, help="keep the projects in this folder, which must not exist")
    arguments = parser.parse_args()
    given = ["--pipelines", arguments.pipelines]
    given += ["--params", arguments.params] if arguments.params else []
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(arguments.counts):
            project = (arguments.folder or Path(folder)).resolve() / str(count)
            make_project(project, count, arguments.classes)
            results[count] = run_count(project, given)
            print(f"{count:,} images: {results[count]['all']['seconds']:,.0f} s", flush=True)
    show(results)


if __name__ == "__main__":
    main()
