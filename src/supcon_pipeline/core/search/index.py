"""An index of embeddings that is kept on disk: exact, or approximate above a size."""

import time
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.data.images import spread_evenly
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.vectors import unit_rows

# Two ways of adding up one product differ by less.
ROUNDING = 1e-6


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

    An approximate index looks at `k` candidates or more; a query for which it still finds too few is answered
    by an exact search.

    Raises:
        ValueError: where `k` is out of range, the width differs, or a query is not finite.
    """
    import faiss

    if not 1 <= k <= index.ntotal:
        raise ValueError(f"k must be from 1 to the number of training images ({index.ntotal}), got {k}")
    if queries.shape[1] != index.d:
        raise ValueError(f"queries must have the {index.d} dimensions of the index, got {queries.shape[1]}")
    if not np.isfinite(queries).all():
        raise InputError("queries must be finite, got NaN or infinity; the encoder's training has gone wrong")
    rows = unit_rows(queries)
    if isinstance(index, faiss.IndexFlat):
        return index.search(rows, k)
    usual = index.hnsw.efSearch
    # Search parameters would do, but not where faiss has been taught to take tensors.
    index.hnsw.efSearch = max(usual, k)
    try:
        similarities, indices = index.search(rows, k)
    finally:
        index.hnsw.efSearch = usual
    # Of many equal rows, the links among them leave no way to the others.
    is_short = (indices < 0).any(axis=1)
    if is_short.any():
        exact = faiss.downcast_index(index.storage)
        similarities[is_short], indices[is_short] = exact.search(rows[is_short], k)
    return similarities, indices


def describe_index(
    index: Any, references: Float[np.ndarray, "m dim"], queries: Float[np.ndarray, "n dim"], k: int
) -> dict[str, Any]:
    """What an index is, and what it finds and costs beside an exact search of the same rows.

    Args:
        index: of the references.
        references: one row per image.
        queries: what is searched for.
        k: neighbours of each query, from 1 to the number of references.

    Returns:
        `kind`, `size`, `dim`, `bytes`, `k`, `num_queries`; `recall` in [0, 1], the share of what it finds
        that is as near as the exact `k` nearest; `time_ratio`, its seconds per query as a share of those of
        the exact search.

    Raises:
        InputError: where the index holds other rows than the references.
        ValueError: where `k` is out of range.
    """
    import faiss

    _require_rows(index, references)
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
        raise InputError(
            f"index must hold {references.shape} numbers, got {(index.ntotal, index.d)}; run index anew"
        )
    # Spread over all, so that the time does not grow with the number of images.
    for row in spread_evenly(np.arange(len(references)), 64):
        if not np.allclose(index.reconstruct(int(row)), unit_rows(references[row : row + 1])[0], atol=1e-6):
            raise InputError(f"index must hold these references, got another at row {row}; run index anew")


def recall(truth: Float[np.ndarray, "n k"], found: Float[np.ndarray, "n k"]) -> float:
    """The share of the neighbours found that are as similar as the last of the true ones, in [0, 1].

    Which of equally similar references are found is chance, and no fault.

    Args:
        truth: similarities of the true neighbours, nearest first.
        found: similarities of those found.

    Raises:
        ValueError: where the shapes differ.

    Source:
        Aumueller et al. 2020, arXiv:1807.05614, section 2.1: recall by distance.
    """
    if truth.shape != found.shape:
        raise ValueError(f"found must have the shape of the truth {truth.shape}, got {found.shape}")
    return float(np.mean(found >= truth[:, -1:] - ROUNDING))


def _timed(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    similarities, _ = search_index(index, queries, k)
    return similarities, time.perf_counter() - started
