"""Nodes of `index`."""

from typing import Any

import pandas as pd

from supcon_pipeline.core.data.images import LabelledEmbeddings, searched_rows, spread_evenly
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.inference import IndexParameters

# Of faiss, which is loaded by what searches alone.
FaissIndex = Any


def index_embeddings(embeddings: NamedTensors, samples: pd.DataFrame, params: IndexParameters) -> FaissIndex:
    """A faiss index of the embeddings of the images that are searched, in the order of the samples."""
    from supcon_pipeline.core.search.index import build_index

    rows = LabelledEmbeddings.of(embeddings, samples).outputs["embedding"]
    return build_index(rows[searched_rows(samples)], params.hnsw_above, **params.hnsw.model_dump())


def tabulate_index(samples: pd.DataFrame) -> pd.DataFrame:
    """Which image each row of the index is: id, class, split, and row in the samples."""
    from supcon_pipeline.core.inference.galleries import gallery_of

    return gallery_of(samples)


def measure_index(
    train_index: FaissIndex, embeddings: NamedTensors, samples: pd.DataFrame, params: IndexParameters
) -> dict[str, Any]:
    """What the index is, what it finds beside an exact search, and what it costs."""
    from supcon_pipeline.core.search.index import describe_index

    labelled = LabelledEmbeddings.of(embeddings, samples)
    references = labelled.outputs["embedding"][searched_rows(samples)]
    held_out = spread_evenly(labelled.rows_of("validation", "test"), params.num_queries)
    recall_k = params.within(len(references)).recall_k
    card = describe_index(train_index, references, labelled.outputs["embedding"][held_out], recall_k)
    return {"model_hash": embeddings.metadata["model_hash"], **card}
