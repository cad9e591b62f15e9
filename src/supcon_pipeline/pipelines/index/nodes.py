"""Nodes of `index`."""

from typing import Any

import pandas as pd

from supcon_pipeline.core.parameters.inference import IndexParameters


def index_embeddings(embeddings: Any, samples: pd.DataFrame, params: IndexParameters) -> Any:
    """A faiss index of the embeddings of the training images, in the order of the samples."""
    from supcon_pipeline.core.data.images import rows_of
    from supcon_pipeline.core.named_tensors import require_order
    from supcon_pipeline.core.search.index import build_index

    require_order(embeddings, samples["id"])
    rows = embeddings.tensors["embedding"].numpy()[rows_of(samples, "train")]
    return build_index(rows, params.hnsw_above, **params.hnsw.model_dump())


def measure_index(
    train_index: Any, embeddings: Any, samples: pd.DataFrame, params: IndexParameters
) -> dict[str, Any]:
    """What the index is, what it finds beside an exact search, and what it costs."""
    from supcon_pipeline.core.data.images import rows_of, spread_evenly
    from supcon_pipeline.core.named_tensors import require_order
    from supcon_pipeline.core.search.index import describe_index

    require_order(embeddings, samples["id"])
    rows = embeddings.tensors["embedding"].numpy()
    queries = rows[spread_evenly(rows_of(samples, "validation", "test"), params.num_queries)]
    card = describe_index(train_index, rows[rows_of(samples, "train")], queries, params.recall_k)
    return {"model_hash": embeddings.metadata["model_hash"], **card}
