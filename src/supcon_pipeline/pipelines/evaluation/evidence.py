"""Nodes of `evaluation` that list what stands behind the numbers: images and pairs of classes to look at."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.class_splits import Search
from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import SPLITS, LabelledEmbeddings, rows_of
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.data import DataPrepParameters
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters
from supcon_pipeline.pipelines.evaluation.limits import (
    lacks_classes,
    limit_checked,
    limit_queries,
    limited_search,
)

# A test image may be a copy of one of its nearest training images, from this cosine similarity on.
CLOSE, NUM_CLOSE = 0.9, 3


def find_neighbours(
    embeddings: NamedTensors, samples: pd.DataFrame, params: EvaluationParameters
) -> pd.DataFrame:
    """The nearest training images of each test image, by cosine similarity of the embeddings.

    Of classes that train lacks, the nearest test images that it may find.
    """
    from supcon_pipeline.core.search.neighbours import search_gallery

    if lacks_classes(samples):
        search = limited_search(samples, params)
    else:
        known = limit_queries(samples, params, "test")
        search = Search(rows_of(known, "test"), rows_of(known, "train"))
    rows = LabelledEmbeddings.of(embeddings, samples).outputs["embedding"]
    places = (search.queries, search.gallery)
    similarities, references = search_gallery(rows, *places, params.num_neighbours, search.exclusions)
    num_found = references.shape[1]
    return pd.DataFrame(
        {
            "query": search.queries.repeat(num_found),
            "rank": np.tile(np.arange(num_found), len(search.queries)),
            "reference": references.ravel(),
            "similarity": similarities.ravel(),
        }
    )


def find_suspicious_labels(
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> pd.DataFrame:
    """The images of any split whose nearest training images have another label, most suspicious first.

    Where train lacks classes, the nearest images of any split.
    """
    from supcon_pipeline.core.metrics.label_errors import suspicious_labels

    labelled = LabelledEmbeddings.of(embeddings, samples)
    in_use = labelled.rows_of(*SPLITS)
    known, (rows, labels) = samples.iloc[in_use], labelled.select("embedding", *SPLITS)
    voters = rows_of(known, *(SPLITS if labelled.has_unseen_classes else ["train"]))
    # An image is no neighbour of its own.
    votes = params.within(len(voters) - 1).knn
    asked = (votes.k, votes.temperature, params.num_suspicious, limit_checked(known, params))
    found = suspicious_labels(rows, labels, voters, *asked)
    table: pd.DataFrame = known.iloc[found["sample"]].reset_index(drop=True)
    table.insert(0, "sample", in_use[found["sample"]])
    names = np.array(dataset_card["class_names"])[found["suggested"]]
    columns = {"suggested": found["suggested"], "suggested_class": names, "suspicion": found["suspicion"]}
    return table.assign(**columns)


def list_confused_pairs(classifier_metrics: dict[str, Any], dataset_card: dict[str, Any]) -> pd.DataFrame:
    """The mistakes of the linear classifier on the test images, by pair of classes."""
    from supcon_pipeline.core.metrics.classification import confused_pairs, unpack_confusion

    if not classifier_metrics:
        return pd.DataFrame(columns=["label", "predicted", "count", "share"])
    names = np.array(dataset_card["class_names"])
    pairs = confused_pairs(unpack_confusion(classifier_metrics["confusion_matrix"], len(names)))
    return pd.DataFrame({**pairs, "label": names[pairs["label"]], "predicted": names[pairs["predicted"]]})


def find_embedding_duplicates(
    neighbours: pd.DataFrame,
    samples: pd.DataFrame,
    prepared_images: StoredImages,
    data_params: DataPrepParameters,
) -> pd.DataFrame:
    """Test images and near training images that show one photograph, where `data_prep` did not find them.

    The encoder finds what the pixels hide, mirrored copies above all; the pixels decide.
    """
    from supcon_pipeline.core.search.near_duplicates import tabulate_pairs, verified_pairs

    is_close = (neighbours["similarity"] >= CLOSE) & (neighbours["rank"] < NUM_CLOSE)
    close = neighbours.loc[is_close, ["query", "reference"]].to_numpy()
    groups = samples["duplicate_group"].to_numpy()
    candidates = close[groups[close[:, 0]] != groups[close[:, 1]]]
    pairs = verified_pairs(prepared_images, candidates, data_params.near_duplicate_similarity)
    return tabulate_pairs(pairs, samples)
