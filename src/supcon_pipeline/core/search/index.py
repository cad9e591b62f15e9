"""A faiss index of embeddings: exact, or approximate above a given size."""

import time
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.data.images import spread_evenly
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.vectors import require_finite, unit_rows

# Two orders of summation of the same product differ by less.
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
        hnsw_above: up to this many rows, the index is exact.
        num_links: links of each row in an approximate index.
        ef_construction: candidates considered when a row is added.
        ef_search: candidates considered in a search.

    Raises:
        InputError: if a row is not finite.

    Source:
        Malkov and Yashunin 2016, arXiv:1603.09320, for HNSW.
    """
    import faiss

    require_finite("references", references)
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

    An approximate index considers at least `k` candidates; a query for which it still finds too few is
    searched exactly.

    Raises:
        ValueError: if `k` is out of range or the width differs.
        InputError: if a query is not finite.
    """
    import faiss

    if not 1 <= k <= index.ntotal:
        raise ValueError(f"k must be from 1 to the number of training images ({index.ntotal}), got {k}")
    if queries.shape[1] != index.d:
        raise ValueError(f"queries must have the {index.d} dimensions of the index, got {queries.shape[1]}")
    require_finite("queries", queries)
    rows = unit_rows(queries)
    if isinstance(index, faiss.IndexFlat):
        return index.search(rows, k)
    ef_search = index.hnsw.efSearch
    # Search parameters do not work once faiss has been patched to take tensors (faiss.contrib.torch_utils).
    index.hnsw.efSearch = max(ef_search, k)
    try:
        similarities, indices = index.search(rows, k)
    finally:
        index.hnsw.efSearch = ef_search
    # Many equal rows link only to one another, which leaves no path to the rest.
    is_short = (indices < 0).any(axis=1)
    if is_short.any():
        exact = faiss.downcast_index(index.storage)
        similarities[is_short], indices[is_short] = exact.search(rows[is_short], k)
    return similarities, indices


def describe_index(
    index: Any, references: Float[np.ndarray, "m dim"], queries: Float[np.ndarray, "n dim"], k: int
) -> dict[str, Any]:
    """Properties of an index, with recall and time relative to an exact search of the same rows.

    Args:
        index: of the references.
        references: one row per image.
        queries: what is searched for.
        k: neighbours of each query, from 1 to the number of references.

    Returns:
        What `describe_rows` says, `k`, `num_queries`; `recall` in [0, 1], the share of what it finds
        that is as near as the exact `k` nearest; `time_ratio`, its time per query divided by that of the
        exact search.

    Raises:
        InputError: if the rows of the index are not the references.
        ValueError: if `k` is out of range.
    """
    import faiss

    _require_rows(index, references)
    exact = faiss.IndexFlatIP(index.d)
    exact.add(unit_rows(references))
    truth, exact_seconds = _timed(exact, queries, k)
    found, seconds = _timed(index, queries, k)
    return {
        **describe_rows(index),
        "k": k,
        "num_queries": len(queries),
        "recall": recall(truth, found),
        "time_ratio": seconds / exact_seconds,
    }


def describe_rows(index: Any) -> dict[str, Any]:
    """What a program that searches an index needs to know.

    Returns:
        `kind` (`flat` is exact, `hnsw` approximate), `size`, `dim`, `bytes`; `metric` and `normalisation`, in
        words: inner products of rows of length 1 are cosines if queries have length 1 as well.
    """
    import faiss

    return {
        "kind": "flat" if isinstance(index, faiss.IndexFlat) else "hnsw",
        "size": index.ntotal,
        "dim": index.d,
        "bytes": int(faiss.serialize_index(index).nbytes),
        "metric": "inner product",
        "normalisation": "rows of Euclidean length 1",
    }


def _require_rows(index: Any, references: Float[np.ndarray, "m dim"]) -> None:
    """Reject an index of other rows; counts alone do not tell two encoders apart."""
    if (index.ntotal, index.d) != references.shape:
        raise InputError(
            f"index must have shape {references.shape}, got {(index.ntotal, index.d)}; "
            "type: kedro run --pipelines index"
        )
    # A sample spread over all rows, so that the time does not grow with their number.
    for row in spread_evenly(np.arange(len(references)), 64):
        if not np.allclose(index.reconstruct(int(row)), unit_rows(references[row : row + 1])[0], atol=1e-6):
            raise InputError(
                f"index must hold these references, got another at row {row}; "
                "type: kedro run --pipelines index"
            )


def recall(truth: Float[np.ndarray, "n k"], found: Float[np.ndarray, "n k"]) -> float:
    """The share of neighbours found that are as similar as the last true one, in [0, 1].

    Which of several equally similar references is found is chance, not an error.

    Args:
        truth: similarities of the true neighbours, nearest first.
        found: similarities of those found.

    Raises:
        ValueError: if the shapes differ.

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
