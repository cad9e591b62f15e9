"""Recall of the ten nearest neighbours by the approximate index, and the time of both indexes.

python benchmarks/index.py --references 50000 --queries 2000 --dims 512

The rows form clusters around the directions of 100 classes, like those of a trained encoder; queries are
other rows of the same classes. The index has the parameters of `conf/base/parameters_index.yml`, except for
the given `ef_search`; 2 threads.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from supcon_pipeline.core.search.index import build_index, recall, search_index

NUM_LINKS, EF_CONSTRUCTION = 32, 200
K = 10
NUM_THREADS = 2


def make_rows(num_rows: int, dim: int, num_classes: int, seed: int) -> np.ndarray:
    """Rows around random class directions, which do not depend on the seed of the rows."""
    centers = np.random.default_rng(0).normal(size=(num_classes, dim)).astype(np.float32)
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(num_rows, dim)).astype(np.float32)
    return centers[rng.integers(0, num_classes, num_rows)] + 0.5 * noise


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a function, and the seconds it took."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def measure(references: np.ndarray, queries: np.ndarray, ef_search: list[int]) -> list[dict[str, Any]]:
    """A row for the exact index and one for the approximate index at each `ef_search`."""
    exact, built_in = timed(lambda: build_index(references, len(references), NUM_LINKS, EF_CONSTRUCTION, 1))
    (truth, _), seconds = timed(lambda: search_index(exact, queries, K))
    each = 1000 / len(queries)
    rows = [{"index": "flat", "build_s": built_in, "ms_per_query": seconds * each, "recall_at_10": 1.0}]
    index, built_in = timed(lambda: build_index(references, 0, NUM_LINKS, EF_CONSTRUCTION, 1))
    for candidates in ef_search:
        index.hnsw.efSearch = candidates
        (found, _), seconds = timed(lambda: search_index(index, queries, K))
        row = {"index": f"hnsw, ef_search {candidates}", "build_s": built_in, "ms_per_query": seconds * each}
        rows.append({**row, "recall_at_10": recall(truth, found)})
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--references", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--ef-search", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(NUM_THREADS)
    references, queries = (
        make_rows(count, arguments.dims, arguments.classes, seed)
        for seed, count in enumerate((arguments.references, arguments.queries))
    )
    rows = measure(references, queries, arguments.ef_search)
    table = Table("index", "build s", "ms per query", "recall@10")
    for row in rows:
        numbers = (f"{row['build_s']:.2f}", f"{row['ms_per_query']:.3f}", f"{row['recall_at_10']:.4f}")
        table.add_row(row["index"], *numbers)
    Console(width=100).print(table)
    print("RESULT", json.dumps(rows))


if __name__ == "__main__":
    main()
