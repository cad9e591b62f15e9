"""Time and memory of the retrieval metrics, compared with the libraries that offer them.

python benchmarks/metrics.py --queries 10000 --references 50000 --dims 512

Each case runs in its own process, with 2 threads; memory is the peak of resident memory above that of the
imports and the features. `ours` computes every retrieval metric; `pytorch-metric-learning` computes
precision@1, R-precision and mAP@R, with a search as deep as the largest class; `scikit-learn` computes
average precision, one query at a time. `feature metrics` and `classifier metrics` are everything that
evaluation computes for an embedding and for a linear classifier, with 1,000 resamples; the memory of the
latter includes the logits of as many test and validation images as there are queries. The `epoch` cases are
the metrics of a validation at about the size of the default's. A case that exceeds the limits of time or
memory is stopped, and counts as not fitting.
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

WAYS = (
    "ours",
    "pytorch-metric-learning",
    "scikit-learn",
    "silhouette, ours",
    "silhouette, scikit-learn",
    "feature metrics",
    "classifier metrics",
)
EPOCH_WAYS = ("epoch, ours", "epoch, pytorch-metric-learning")
EPOCH_SIZE = (270, 1257, 128)
NUM_CLASSES = (2, 100, 10_000)
NUM_THREADS = 2


def library_metrics(queries: Any, labels: Any, references: Any, reference_labels: Any) -> dict[str, float]:
    """The metrics of pytorch-metric-learning."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k="max_bin_count")
    return calculator.get_accuracy(queries, labels, references, reference_labels, ref_includes_query=False)


def average_precision(queries: Any, labels: Any, references: Any, reference_labels: Any) -> dict[str, float]:
    """The metric of scikit-learn, one query at a time."""
    from sklearn.metrics import average_precision_score

    scores = [
        average_precision_score(reference_labels == label, references @ query)
        for query, label in zip(queries, labels, strict=True)
        if (reference_labels == label).any()
    ]
    return {"mean_average_precision": sum(scores) / len(scores)}


def all_feature_metrics(queries: Any, labels: Any, *references: Any) -> dict[str, float]:
    """The metrics of the node `score_features` for one kind of features, with default parameters."""
    from supcon_pipeline.core.metrics.features import feature_metrics, feature_values

    values = feature_values(queries, labels, *references, (1, 5, 20), 20, 0.07)
    scores = feature_metrics(values, queries, labels, num_resamples=1000, seed=0)
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def all_classifier_metrics(
    queries: Any, labels: Any, references: Any, reference_labels: Any
) -> dict[str, float]:
    """The metrics of the node `score_classifier`, for logits that are similarities to the class means."""
    import numpy as np

    from supcon_pipeline.core.metrics.classification import classification_metrics

    classes = int(max(labels.max(), reference_labels.max())) + 1
    means = np.zeros((classes, queries.shape[1]), dtype=np.float32)
    np.add.at(means, reference_labels, references)
    means /= np.maximum(np.bincount(reference_labels, minlength=classes), 1)[:, None]
    validation = slice(len(queries))
    logits, validation_logits = 10 * queries @ means.T, 10 * references[validation] @ means.T
    names = [str(index) for index in range(classes)]
    scores = classification_metrics(
        logits, labels, validation_logits, reference_labels[validation], names, num_resamples=1000, seed=0
    )
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def way_function(way: str) -> Callable[..., dict[str, float]]:
    """A function of queries, their labels, references and their labels, with rows of unit length."""
    from sklearn.metrics import silhouette_score

    from supcon_pipeline.core.metrics.clustering import clustering_metrics, silhouette
    from supcon_pipeline.core.metrics.features import embedding_metrics
    from supcon_pipeline.core.metrics.retrieval import retrieval_values

    def ours(*features: Any) -> dict[str, float]:
        values = retrieval_values(*features, ks=(1, 10))
        return {name: float(column.mean()) for name, column in values.items()}

    def library_epoch(queries: Any, labels: Any, *references: Any) -> dict[str, float]:
        return {**library_metrics(queries, labels, *references), **clustering_metrics(queries, labels)}

    return {
        "ours": ours,
        "pytorch-metric-learning": library_metrics,
        "scikit-learn": average_precision,
        "silhouette, ours": lambda rows, labels, *_: {"silhouette": silhouette(rows, labels)},
        "silhouette, scikit-learn": lambda rows, labels, *_: {
            "silhouette": float(silhouette_score(rows, labels, metric="cosine"))
        },
        "feature metrics": all_feature_metrics,
        "classifier metrics": all_classifier_metrics,
        "epoch, ours": embedding_metrics,
        "epoch, pytorch-metric-learning": library_epoch,
    }[way]


def make_features(num_queries: int, num_references: int, dim: int, num_classes: int) -> tuple[Any, ...]:
    """Overlapping classes around random centres, rows of unit length, float32."""
    import numpy as np

    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_classes, dim)).astype(np.float32)
    features = []
    for num_rows in (num_queries, num_references):
        labels = rng.integers(0, num_classes, num_rows)
        rows = centers[labels] + 3 * rng.normal(size=(num_rows, dim)).astype(np.float32)
        features += [rows / np.linalg.norm(rows, axis=1, keepdims=True), labels]
    return tuple(features)


def resident_mib(field: str) -> float:
    """Resident memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(way: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Seconds, peak memory above the features in MiB, and the metrics."""
    import torch

    torch.set_num_threads(NUM_THREADS)
    function = way_function(way)
    # Starting threads and late imports are not part of the metrics.
    function(*make_features(64, 64, 8, 2))
    features = make_features(*sizes)
    bare, start = resident_mib("VmRSS"), time.perf_counter()
    metrics = {name: float(value) for name, value in function(*features).items()}
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mib": max(0.0, resident_mib("VmHWM") - bare), "metrics": metrics}


def measure_apart(
    way: str, sizes: tuple[int, ...], limit_gib: float, limit_s: float
) -> dict[str, Any] | None:
    """`measure` in its own process; None if it exceeds the limits."""

    def limit() -> None:
        size = int(limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    command = [sys.executable, __file__, "--case", way, *map(str, sizes)]
    threads = {"OMP_NUM_THREADS": str(NUM_THREADS), "OPENBLAS_NUM_THREADS": str(NUM_THREADS)}
    try:
        done = subprocess.run(
            command,
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--references", type=int, default=50_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=NUM_CLASSES)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *EPOCH_WAYS], default=[*WAYS, *EPOCH_WAYS])
    parser.add_argument(
        "--limit-gib", type=float, default=12, help="address space of a case, including imports"
    )
    parser.add_argument("--limit-s", type=float, default=600)
    parser.add_argument("--case", nargs=5, metavar=("WAY", "QUERIES", "REFERENCES", "DIMS", "CLASSES"))
    arguments = parser.parse_args()
    if arguments.case:
        way, *sizes = arguments.case
        print(json.dumps(measure(way, tuple(map(int, sizes)))))
        return
    size = (arguments.queries, arguments.references, arguments.dims)
    cases = [(way, (*size, num_classes)) for num_classes in arguments.classes for way in WAYS]
    cases += [(way, (*EPOCH_SIZE, 10)) for way in EPOCH_WAYS]
    cases = [case for case in cases if case[0] in arguments.ways]
    table = Table("queries", "references", "dims", "classes", "way", "seconds", "MiB")
    figures = []
    for way, sizes in cases:
        figure = measure_apart(way, sizes, arguments.limit_gib, arguments.limit_s)
        numbers = (f"{figure['seconds']:.3f}", f"{figure['mib']:.0f}") if figure else ("does not fit", "")
        table.add_row(*(f"{number:,}" for number in sizes), way, *numbers)
        figures.append({"way": way, "sizes": sizes, **(figure or {"fits": False})})
    Console(width=110).print(table)
    print("RESULT", json.dumps(figures))


if __name__ == "__main__":
    main()
