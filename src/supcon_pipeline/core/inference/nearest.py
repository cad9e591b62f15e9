"""The nearest known images of new ones by searches other than the plain one."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.parameters.inference import InferenceParameters
from supcon_pipeline.core.search.expansion import expand_queries
from supcon_pipeline.core.search.index import search_index
from supcon_pipeline.core.search.neighbours import TILE_SIZE
from supcon_pipeline.core.search.reranking import Reranker

Neighbours = tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]


def list_otherwise(
    index: Any, queries: Float[np.ndarray, "n dim"], k: int, params: InferenceParameters
) -> Neighbours | None:
    """The `k` nearest by the search that was asked for, nearest first: similarities, and rows of the index.

    Args:
        index: of the embeddings that are searched.
        queries: embeddings of new images.
        k: from 1 to the size of the index.
        params: with `reranking`, which takes all queries into account for each, or `query_expansion`.

    Returns:
        None where neither was asked for.

    Raises:
        ValueError: where the index has fewer than two rows to rank anew.
        InputError: if a query is not finite.
    """
    known, new = np.arange(index.ntotal), index.ntotal + np.arange(len(queries))
    if params.query_expansion is not None:
        options = params.query_expansion.model_dump()
        return search_index(index, expand_queries(_rows(index, queries), new, known, **options), k)
    if params.reranking is not None:
        options = params.reranking.model_dump()
        return _rank_anew(Reranker.within(_rows(index, queries), new, known, **options), new, k)
    return None


def _rows(index: Any, queries: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "m dim"]:
    """The rows of the index, and the queries behind them."""
    return np.concatenate([index.reconstruct_n(0, index.ntotal), queries])


def _rank_anew(reranker: Reranker, new: Int[np.ndarray, " n"], k: int) -> Neighbours:
    """The nearest by a reranker; of equally near ones the first."""
    similarities, rows = [], []
    step = max(1, TILE_SIZE // int(new[0]))
    for start in range(0, len(new), step):
        found = reranker.similarities(new[start : start + step])
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        rows.append(order)
        similarities.append(np.take_along_axis(found, order, axis=1))
    return np.concatenate(similarities), np.concatenate(rows)
