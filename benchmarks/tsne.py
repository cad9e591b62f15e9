"""t-SNE of embeddings, compared with scikit-learn's: seconds, and the share of neighbours that the map keeps.

Overlapping classes around random centres, as embeddings of unit length in 128 dimensions. Both get the same
rows, perplexity, iterations and threads. A neighbour is kept if it is among the 10 nearest both in 128
dimensions and on the map.

    python benchmarks/tsne.py --points 10000
"""

import argparse
import json
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.manifold import TSNE

from supcon_pipeline.core.figures.tsne import tsne_map
from supcon_pipeline.core.search.neighbours import search_neighbours

PERPLEXITY, NUM_ITERATIONS = 30.0, 750
NUM_CLASSES, DIM, NUM_NEIGHBOURS = 100, 128, 10


def make_embeddings(num_points: int) -> np.ndarray:
    """Rows of unit length."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(NUM_CLASSES, DIM))
    rows = centers[rng.integers(0, NUM_CLASSES, num_points)] + rng.normal(size=(num_points, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ours(rows: np.ndarray, num_threads: int) -> np.ndarray:
    """The map of this project."""
    return tsne_map(rows, PERPLEXITY, NUM_ITERATIONS, seed=0, num_jobs=num_threads)


def library(rows: np.ndarray, num_threads: int) -> np.ndarray:
    """scikit-learn's map."""
    tsne = TSNE(perplexity=PERPLEXITY, max_iter=NUM_ITERATIONS, random_state=0, n_jobs=num_threads)
    return tsne.fit_transform(rows)


def kept_neighbours(rows: np.ndarray, points: np.ndarray) -> float:
    """Share of the nearest neighbours in all dimensions that are also nearest on the map."""
    near, found = (
        search_neighbours(space, space, NUM_NEIGHBOURS + 1, metric="euclidean")[1] for space in (rows, points)
    )
    shared = [np.intersect1d(left, right).size - 1 for left, right in zip(near, found, strict=True)]
    return float(np.mean(shared)) / NUM_NEIGHBOURS


def main() -> None:
    """Compute both maps, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rows = make_embeddings(arguments.points)
    result = {}
    table = Table("way", "seconds", "neighbours kept")
    for name, draw in {"supcon_pipeline": ours, "scikit-learn": library}.items():
        start = time.perf_counter()
        points = draw(rows, arguments.threads)
        seconds = time.perf_counter() - start
        kept = kept_neighbours(rows, points)
        result[name] = {"seconds": seconds, "neighbours_kept": kept}
        table.add_row(name, f"{seconds:.1f}", f"{kept:.3f}")
    Console(width=80).print(table)
    result["ratio"] = result["supcon_pipeline"]["seconds"] / result["scikit-learn"]["seconds"]
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    main()
