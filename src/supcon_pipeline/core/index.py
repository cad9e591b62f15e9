"""An index of embeddings that is kept on disk: exact, or approximate above a size."""

import time
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.images import spread_evenly
from supcon_pipeline.core.metrics import unit_rows


def build_index(
    references: Float[np.ndarray, "m dim"],
    hnsw_above: int,
    num_links: int,
    ef_construction: int,
    ef_search: int,
) -> Any:
    """A faiss index of the references by cosine similarity, in their order.

    Args:
        references: one row per image; scaled to length 1 here.
        hnsw_above: up to so many rows the index is exact.
        num_links: of each row to others, in an approximate index.
        ef_construction: candidates looked at when a row is put in.
        ef_search: candidates looked at in a search.

    Source:
        Malkov and Yashunin 2016, arXiv:1603.09320, for HNSW.
    """
    import faiss

    rows, dim = unit_rows(references), references.shape[1]
    if len(rows) <= hnsw_above:
        index: Any = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexHNSWFlat(dim, num_links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = ef_construction, ef_search
    index.add(rows)
    return index


def search_index(
    index: Any, queries: Float[np.ndarray, "n dim"], k: int
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """The `k` nearest references of each query, nearest first: cosine similarities and indices.

    Raises:
        ValueError: where `k` is out of range, the width differs, or an approximate index finds too few.
    """
    if not 1 <= k <= index.ntotal:
        raise ValueError(f"k must be from 1 to the number of training images ({index.ntotal}), got {k}")
    if queries.shape[1] != index.d:
        raise ValueError(f"queries must have the {index.d} dimensions of the index, got {queries.shape[1]}")
    similarities, indices = index.search(unit_rows(queries), k)
    if (indices < 0).any():
        raise ValueError(f"the index must find {k} neighbours of each query, got fewer; raise hnsw.ef_search")
    return similarities, indices


def describe_index(
    index: Any, references: Float[np.ndarray, "m dim"], queries: Float[np.ndarray, "n dim"], k: int
) -> dict[str, Any]:
    """What an index is, and what it finds and costs beside an exact search of the same rows.

    Returns:
        `kind`, `size`, `dim`, `bytes`, `k`, `num_queries`; `recall` in [0, 1], the share of the exact `k`
        nearest that it finds; `time_ratio`, its seconds per query as a share of those of the exact search.

    Raises:
        ValueError: where the index holds other rows than the references.
    """
    import faiss

    _require_rows(index, references)
    k = min(k, index.ntotal)
    exact = faiss.IndexFlatIP(index.d)
    exact.add(unit_rows(references))
    truth, exact_seconds = _timed(exact, queries, k)
    found, seconds = _timed(index, queries, k)
    return {
        "kind": "flat" if isinstance(index, faiss.IndexFlat) else "hnsw",
        "size": index.ntotal,
        "dim": index.d,
        "bytes": int(faiss.serialize_index(index).nbytes),
        "k": k,
        "num_queries": len(queries),
        "recall": recall(truth, found),
        "time_ratio": seconds / exact_seconds,
    }


def _require_rows(index: Any, references: Float[np.ndarray, "m dim"]) -> None:
    """The count alone does not tell the embeddings of one encoder from those of another."""
    if (index.ntotal, index.d) != references.shape:
        raise ValueError(f"index must hold {references.shape} numbers, got {(index.ntotal, index.d)}")
    # Spread over all, so that the time does not grow with the number of images.
    for row in spread_evenly(np.arange(len(references)), 64):
        if not np.allclose(index.reconstruct(int(row)), unit_rows(references[row : row + 1])[0], atol=1e-6):
            raise ValueError(f"index must hold these references, got another at row {row}; run index anew")


def recall(truth: Int[np.ndarray, "n k"], found: Int[np.ndarray, "n k"]) -> float:
    """The share of the true neighbours that were found, in any order, in [0, 1].

    Raises:
        ValueError: where the shapes differ.
    """
    if truth.shape != found.shape:
        raise ValueError(f"found must have the shape of the truth {truth.shape}, got {found.shape}")
    return float(np.mean([np.isin(row, other).mean() for row, other in zip(truth, found, strict=True)]))


def _timed(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    _, indices = search_index(index, queries, k)
    return indices, time.perf_counter() - started
