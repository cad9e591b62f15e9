"""Time and memory of searching a set among itself, and of verification over all its pairs.

python benchmarks/retrieval.py --rows 10000 60000 --dims 512

Classes have five images on average, as in Stanford Online Products. Each case runs in its own process, with 2
threads; memory is the peak of resident memory above that of the imports and the embeddings. `search` computes
every retrieval metric, with recall at 1 to 1,000; `search-by-matrix` sorts the matrix of all similarities and
computes recall at the same k and mean average precision; `search-by-pytorch-metric-learning` computes
precision@1, R-precision and mAP@R from as many neighbours as the largest class has members. `verification`
computes the curve over all pairs, `verification-by-scikit-learn` the same from a list of all pairs. A case
that exceeds the limits of time or memory is stopped, and counts as not fitting.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

NUM_THREADS = 2
KS = (1, 2, 4, 8, 10, 100, 1000)
IMAGES_PER_CLASS = 5


def search(embeddings: Any, labels: Any) -> dict[str, float]:
    """The metrics of the project."""
    from supcon_pipeline.core.metrics.retrieval import search_values

    rows = range(len(labels))
    values = search_values(embeddings, labels, rows, rows, KS).values
    return {name: float(column.mean()) for name, column in values.items()}


def search_matrix(embeddings: Any, labels: Any) -> dict[str, float]:
    """Recall and mean average precision from the sorted matrix of all similarities."""
    import numpy as np

    similarities = embeddings @ embeddings.T
    np.fill_diagonal(similarities, -np.inf)
    is_hit = (labels[np.argsort(-similarities, axis=1)] == labels[:, None])[:, :-1]
    is_hit = is_hit[is_hit.any(axis=1)]
    precisions = np.cumsum(is_hit, axis=1) / np.arange(1, is_hit.shape[1] + 1)
    average = (precisions * is_hit).sum(axis=1) / is_hit.sum(axis=1)
    recalls = {f"recall_at_{k}": float(is_hit[:, :k].any(axis=1).mean()) for k in KS if k < len(labels)}
    return {**recalls, "mean_average_precision": float(average.mean())}


def search_library(embeddings: Any, labels: Any) -> dict[str, float]:
    """The metrics of pytorch-metric-learning."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    return AccuracyCalculator(include=names, k="max_bin_count").get_accuracy(embeddings, labels)


def verify(embeddings: Any, labels: Any) -> dict[str, float]:
    """The verification metrics of the project."""
    from supcon_pipeline.core.metrics.verification import count_pairs, verification_metrics

    metrics = verification_metrics(count_pairs(embeddings, labels, range(len(labels))), (0.1, 0.01, 0.001))
    return {name: metrics[name] for name in ("auc", "equal_error_rate")}


def verify_library(embeddings: Any, labels: Any) -> dict[str, float]:
    """The same from a list of all pairs with scikit-learn."""
    import numpy as np
    from sklearn.metrics import auc, roc_curve

    first, second = np.triu_indices(len(labels), 1)
    fmr, tmr, _ = roc_curve(labels[first] == labels[second], (embeddings @ embeddings.T)[first, second])
    return {"auc": float(auc(fmr, tmr)), "equal_error_rate": float(np.interp(0, fmr + tmr - 1, fmr))}


WAYS: dict[str, Callable[[Any, Any], dict[str, float]]] = {
    "search": search,
    "search-by-matrix": search_matrix,
    "search-by-pytorch-metric-learning": search_library,
    "verification": verify,
    "verification-by-scikit-learn": verify_library,
}


def make_embeddings(num_rows: int, dim: int) -> tuple[Any, Any]:
    """Overlapping classes around random centres, rows of unit length, float32, and their labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    num_classes = max(2, num_rows // IMAGES_PER_CLASS)
    labels = rng.integers(0, num_classes, num_rows)
    embeddings = rng.normal(size=(num_classes, dim)).astype(np.float32)[labels]
    embeddings += 2 * rng.normal(size=(num_rows, dim)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), labels


def resident_mib(field: str) -> float:
    """Resident memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(way: str, num_rows: int, dim: int) -> dict[str, Any]:
    """Seconds, peak memory above the embeddings in MiB, and the metrics."""
    # Starting threads and late imports are not part of the metrics.
    WAYS[way](*make_embeddings(64, 8))
    embeddings = make_embeddings(num_rows, dim)
    bare, start = resident_mib("VmRSS"), time.perf_counter()
    metrics = WAYS[way](*embeddings)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mib": max(0.0, resident_mib("VmHWM") - bare), "metrics": metrics}


def measure_apart(
    way: str, sizes: tuple[int, int], limit_gib: float, limit_s: float
) -> dict[str, Any] | None:
    """`measure` in its own process; None if it exceeds the limits."""

    def limit() -> None:
        size = int(limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    threads = {"OMP_NUM_THREADS": str(NUM_THREADS), "OPENBLAS_NUM_THREADS": str(NUM_THREADS)}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--case", way, *map(str, sizes)],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **threads},
            timeout=limit_s,
            preexec_fn=limit,
        )
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def main() -> None:
    """Measure the given case, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 60_000])
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument(
        "--limit-gib", type=float, default=12, help="address space of a case, including imports"
    )
    parser.add_argument("--limit-s", type=float, default=900)
    parser.add_argument("--case", nargs=3, metavar=("WAY", "ROWS", "DIMS"))
    arguments = parser.parse_args()
    if arguments.case:
        way, *sizes = arguments.case
        print(json.dumps(measure(way, *map(int, sizes))))
        return
    table = Table("rows", "dims", "way", "seconds", "MiB")
    figures = []
    for num_rows in arguments.rows:
        for way in arguments.ways:
            sizes = (num_rows, arguments.dims)
            figure = measure_apart(way, sizes, arguments.limit_gib, arguments.limit_s)
            numbers = (
                (f"{figure['seconds']:.1f}", f"{figure['mib']:,.0f}") if figure else ("does not fit", "")
            )
            table.add_row(f"{num_rows:,}", f"{arguments.dims}", way, *numbers)
            figures.append({"way": way, "sizes": sizes, **(figure or {"fits": False})})
    Console(width=100).print(table)
    print("RESULT", json.dumps(figures))


if __name__ == "__main__":
    main()
