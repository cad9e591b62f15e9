"""What there is to prove and to measure on one GPU, part by part, in a few minutes.

    python benchmarks/gpu.py --minutes 8

tests       those that are skipped where there is no GPU
loss        the contrastive loss beside the plain formula and pytorch-metric-learning, by rows and tile
epoch       an epoch of stage 1 of `conf/cifar10` beside a straightforward loop
validation  ranking 45,000 images for each of 5,000, on the GPU and on the CPU
recipe      stage 1 of an environment for as long as is left, with k-NN accuracy

Each part has a process of its own and saves what it has found, case by case, in a file of `--out`: nothing is
lost where the script is cut off. Without a GPU the same runs on the CPU; the smallest sizes are those of
`tests/system/test_benchmarks.py`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

PARTS = ("tests", "loss", "epoch", "validation", "recipe")
Save = Callable[[Mapping[str, Any]], None]


def run_tests(options: argparse.Namespace, save: Save) -> None:
    """How the tests end; the log of the part says how each does."""
    workers = ["-n", str(options.workers), "--dist", "worksteal"] if options.workers > 1 else []
    command = [sys.executable, "-m", "pytest", "-v", "-m", options.mark, "-p", "no:cacheprovider"]
    command += [*workers, *options.tests]
    start, line = time.perf_counter(), ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tests:
        for line in tests.stdout or ():
            print(line, end="", flush=True)
    save({"ends": line.strip(" =\n"), "seconds": time.perf_counter() - start})


def measure_loss(options: argparse.Namespace, save: Save) -> None:
    """Seconds, memory and share of the peak of the matrix units, by way, rows and size of tile."""
    from benchmarks.on_device import measure_ways, peak_rate

    peak = peak_rate(options.matrix)
    save({"case": f"product of {options.matrix:,} rows, float32", "tflops": peak / 1e12})
    measure_ways(options.rows, options.tiles, peak, save)


def random_images(num_train: int, num_validation: int) -> Any:
    """Noise of 32 pixels in 100 classes: as costly as any image."""
    from supcon_pipeline.core.data.images import LabelledImages

    count = num_train + num_validation
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    splits = np.array(["train"] * num_train + ["validation"] * num_validation, dtype=object)
    return LabelledImages(images, np.arange(count) % 100, splits)


def measure_epoch(options: argparse.Namespace, save: Save) -> None:
    """Images per second and the share of waiting, of each loop and precision, and syncs in a step."""
    from benchmarks.epoch import our_epoch, plain_epoch
    from benchmarks.recipe import group_parameters

    from supcon_pipeline.core.parameters.stages import Stage1Parameters

    changes = [f"loader.num_workers={options.workers}", "validation_interval=1", *options.epoch_changes]
    raw = group_parameters("stage1", "cifar10", changes)
    data = random_images(options.steps * raw["loader"]["batch_size"], 1000)
    loops = {
        "straightforward, float32": lambda params: plain_epoch(data, params, options.workers),
        "float32": lambda params: our_epoch(data, params),
        "bfloat16": lambda params: our_epoch(data, params),
        "bfloat16, compiled": lambda params: our_epoch(data, params),
    }
    for name, loop in loops.items():
        if name.endswith("compiled") and not options.compile:
            continue
        precision = "bfloat16" if "bfloat16" in name else "float32"
        chosen = {**raw, "precision": precision, "compile": "compiled" in name}
        run = loop(Stage1Parameters.model_validate(chosen))
        first = run()
        rounds = [run() for _ in range(options.rounds)]
        parts = {part: median(one[part] for one in rounds) for part in rounds[0]}
        seconds = parts["wait"] + parts["step"]
        rate = len(data.indices("train")) / seconds
        save(
            {
                "case": name,
                "images_per_second": rate,
                "waiting": parts["wait"] / seconds,
                "validation_seconds": parts["validate"],
                "first_seconds": first["wait"] + first["step"],
            }
        )
    measure_steps({**raw, "precision": "bfloat16"}, data, min(options.steps, 10), save)


def measure_steps(raw: Mapping[str, Any], data: Any, count: int, save: Save) -> None:
    """Steps on a batch that is on the device already: what a GPU does without waiting, and its syncs."""
    import torch
    from benchmarks.epoch import CARD
    from benchmarks.on_device import seconds_of

    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.parameters.stages import Stage1Parameters
    from supcon_pipeline.core.training.recipes import contrastive_stage
    from supcon_pipeline.core.training.stage import build_training

    for is_benchmarked in (False, True):
        torch.backends.cudnn.benchmark = is_benchmarked
        params = Stage1Parameters.model_validate(raw)
        training = build_training(contrastive_stage(data, CARD, params), data)
        training.begin_epoch(0)
        batch = next(iter(training.loader.epoch(0))).to(pick_device())
        training.loader.close()
        seconds = seconds_of(partial(train_steps, training, batch, count), 3) / count
        name = "steps without views" + (", cuDNN's algorithms tried out" if is_benchmarked else "")
        found = {"images_per_second": len(batch.labels) / seconds, "syncs": num_syncs(training, batch)}
        save({"case": name, **found})
    torch.backends.cudnn.benchmark = False


def train_steps(training: Any, batch: Any, count: int) -> None:
    """Some steps on one batch."""
    from supcon_pipeline.core.training.loop import train_step

    for _ in range(count):
        train_step(training, batch)


def num_syncs(training: Any, batch: Any) -> int:
    """How often a step waits for the GPU."""
    import torch

    from supcon_pipeline.core.training.loop import train_step

    if not torch.cuda.is_available():
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        train_step(training, batch)
        torch.cuda.set_sync_debug_mode("default")
    # Torch also warns that it does not notice all.
    syncs = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
    for sync in syncs:
        print(f"{sync.filename}:{sync.lineno}: {sync.message}")
    return len(syncs)


def measure_validation(options: argparse.Namespace, save: Save) -> None:
    """Seconds of the ranking and of all metrics of a validation, on each device; the metrics are the same."""
    import torch
    from benchmarks.on_device import seconds_of

    from supcon_pipeline.core import device
    from supcon_pipeline.core.metrics.features import embedding_metrics
    from supcon_pipeline.core.metrics.retrieval import retrieval_values

    generator = np.random.default_rng(0)
    rows = generator.standard_normal((options.queries + options.references, 512), dtype=np.float32)
    labels = np.arange(len(rows)) % 10
    (queries, references), (ours, theirs) = (np.split(array, [options.queries]) for array in (rows, labels))
    for name in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
        if name == "cpu":
            device.find_gpu = lambda: None
        found: list[dict[str, float]] = []
        ranking = seconds_of(lambda: retrieval_values(queries, ours, references, theirs), 1)
        seconds = seconds_of(
            lambda to=found: to.append(embedding_metrics(queries, ours, references, theirs)), 1
        )
        save({"case": name, "ranking_seconds": ranking, "seconds": seconds, **found[-1]})


def run_recipe(options: argparse.Namespace, save: Save) -> None:
    """What `recipe.py` finds in the time that is left."""
    command = [sys.executable, "-m", "benchmarks.recipe", "--workers", str(options.workers)]
    command += ["--minutes", str(max(options.seconds_left - 45, 3) / 60), *options.recipe]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            marker, _, found = line.partition(" ")
            if marker == "CASE":
                save(json.loads(found))
    if process.returncode:
        raise SystemExit(process.returncode)


WORK = {
    "tests": run_tests,
    "loss": measure_loss,
    "epoch": measure_epoch,
    "validation": measure_validation,
    "recipe": run_recipe,
}


def run_part(name: str, options: argparse.Namespace) -> None:
    """One part, in this process; every case is saved at once."""
    cases: list[Mapping[str, Any]] = []

    def save(case: Mapping[str, Any]) -> None:
        cases.append(case)
        print(case, flush=True)
        (options.out / f"{name}.json").write_text(json.dumps(cases, indent=1))

    WORK[name](options, save)


def cases_of(name: str, folder: Path) -> list[dict[str, Any]]:
    """What a part has saved."""
    path = folder / f"{name}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def show(name: str, cases: list[dict[str, Any]]) -> None:
    """A table of what a part has found."""
    columns = list(dict.fromkeys(column for case in cases for column in case))
    table = Table(*columns, title=name)
    for case in cases:
        values = [case.get(column, "") for column in columns]
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values))
    Console(width=160).print(table)


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--minutes", type=float, default=8, help="for all parts; the last gets what is left")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of results and logs")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)) - 1)
    parser.add_argument("--tests", nargs="*", default=["tests/core", "tests/test_accidents.py"])
    parser.add_argument("--mark", default="skipif", help="of the tests; empty for all")
    parser.add_argument("--rows", type=int, nargs="+", default=[8192, 32768, 131072], help="of the loss")
    parser.add_argument("--tiles", type=int, nargs="+", default=[2048, 4096, 8192], help="of the loss")
    parser.add_argument("--matrix", type=int, default=8192, help="rows of the product that shows the peak")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=2, help="epochs of each loop, after the first")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--epoch-changes", nargs="*", default=[], help="of its parameters, as in recipe.py")
    parser.add_argument("--queries", type=int, default=5000, help="of validation")
    parser.add_argument("--references", type=int, default=45_000)
    parser.add_argument("--recipe", nargs=argparse.REMAINDER, default=[], help="then options of recipe.py")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds-left", type=float, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the parts one after the other, then print what they found."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_part(options.part, options)
        return
    end = time.monotonic() + 60 * options.minutes
    for name in options.parts:
        left = max(end - time.monotonic(), 1)
        (options.out / f"{name}.json").unlink(missing_ok=True)
        print(f"{name} {run_apart(name, options.out, left)}; {end - time.monotonic():.0f} s left", flush=True)
    results = {name: cases_of(name, options.out) for name in options.parts}
    for name, cases in results.items():
        show(name, cases)
    print("RESULT", json.dumps({"device": device_name(), **results}))


def run_apart(name: str, folder: Path, seconds: float) -> str:
    """Run a part in a process of its own for so long at most; how it ended."""
    options = ["--part", name, "--seconds-left", str(seconds), *sys.argv[1:]]
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    root = Path(__file__).parents[1]
    # A checkout is enough: the project need not be installed.
    paths = [str(root), str(root / "src"), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with (
        (folder / f"{name}.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as part,
    ):
        try:
            code = part.wait(seconds)
        except subprocess.TimeoutExpired:
            # With all that it has started.
            os.killpg(part.pid, signal.SIGKILL)
            return "was cut off"
    return "ended" if code == 0 else f"failed with {code}, see {log.name}"


def device_name() -> str:
    """The name of the card, or `cpu`."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
