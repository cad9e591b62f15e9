"""Nodes of `enrol`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import LabelledEmbeddings, RawImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors, require_origin
from supcon_pipeline.core.parameters.inference import EnrolParameters, IndexParameters

# Of faiss, which is loaded by what searches alone.
FaissIndex = Any


def read_enrolled_images(
    enrol_images: RawImages, encoder: NamedTensors, params: EnrolParameters
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """The images as the encoder takes them, the id and class of each, and those that cannot be read."""
    from supcon_pipeline.core.inference.new_images import name_by_path, read_images

    named = name_by_path(enrol_images)
    images, readable, unreadable = read_images(named, encoder, params.num_workers)
    classes = dict(zip(named.ids, np.array(named.class_names)[named.labels], strict=True))
    samples = pd.DataFrame({"id": readable["image"], "class_name": readable["image"].map(classes)})
    return images, samples, unreadable


def embed_enrolled_images(
    encoder: NamedTensors, enrolled_images: np.ndarray | None, params: EnrolParameters
) -> NamedTensors:
    """Embedding of every image, in their order."""
    if enrolled_images is None:
        raise _none_enrolled("enrolled_images")
    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.models.embed import embed_by

    return embed_by(encoder, enrolled_images, params.batch_size, pick_device())


def extend_index(
    enrolled_embeddings: NamedTensors | None,
    enrolled_samples: pd.DataFrame | None,
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    index_params: IndexParameters,
) -> tuple[FaissIndex, pd.DataFrame, dict[str, Any]]:
    """An index of the images of the run and of those that came after it, which row is which, and its card."""
    from supcon_pipeline.core.inference.galleries import extend_gallery, gallery_of
    from supcon_pipeline.core.search.index import build_index, describe_rows

    if enrolled_embeddings is None or enrolled_samples is None:
        raise _none_enrolled("enrolled_embeddings")
    model_hash = embeddings.metadata["model_hash"]
    remedy = "type: kedro run --pipelines evaluation,enrol"
    require_origin("embeddings", enrolled_embeddings.metadata, "model_hash", model_hash, remedy)
    labelled, gallery = LabelledEmbeddings.of(embeddings, samples), gallery_of(samples)
    known = labelled.outputs["embedding"][gallery["row"]]
    rows = np.concatenate([known, enrolled_embeddings.tensors["embedding"].numpy()])
    index = build_index(rows, index_params.hnsw_above, **index_params.hnsw.model_dump())
    table = extend_gallery(gallery, enrolled_samples, dataset_card["class_names"])
    counts = {"num_enrolled": len(enrolled_samples)}
    return index, table, {"model_hash": model_hash, **describe_rows(index), **counts}


def _none_enrolled(name: str) -> InputError:
    """The error of a node that was chosen alone, where nothing was enrolled: catalog entries are optional."""
    return InputError(
        f"{name} must be there to be used, got none of this encoder; "
        "type: kedro run --pipelines enrol --params enrol.path=<folder>"
    )
