"""Images whose neighbours contradict their label."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.search.knn import iterate_votes
from supcon_pipeline.core.search.neighbours import search_other_neighbours


def suspicious_labels(
    rows: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    reference_rows: Int[np.ndarray, " m"],
    k: int,
    temperature: float,
    limit: int,
    checked: Int[np.ndarray, " q"] | None = None,
) -> dict[str, Any]:
    """The images that weighted k-NN assigns to another class than their label, most suspicious first.

    No image votes on itself. The encoder may have learned wrong labels of its training images, so that fewer
    of them are found than among held-out images.

    Args:
        rows: embeddings of all images.
        labels: the class of each.
        reference_rows: the images that vote.
        k: how many of them vote, from 1 to one less than there are.
        temperature: temperature of the votes, above 0; lower gives the nearest more weight.
        limit: maximum number of images returned.
        checked: the images whose labels are checked; all if not given.

    Returns:
        Columns: `sample` (index into the rows), `suggested` (class) and `suspicion` (from 0 to 1: the share
        of the votes that is not for the label). Ties are ordered by similarity to the nearest neighbour.

    Raises:
        ValueError: if `k` or the temperature is out of range.

    Source:
        Zhu et al. 2022, arXiv:2110.06283, the local vote, weighted here.
    """
    everything, labels = np.arange(len(rows)), np.asarray(labels)
    checked = everything if checked is None else np.asarray(checked)
    similarities, neighbours = search_other_neighbours(rows, reference_rows, k, checked)
    own = labels[checked]
    suggested, for_label = np.empty(len(own), dtype=np.int64), np.empty(len(own))
    for tile, votes in iterate_votes(similarities, labels[neighbours], int(labels.max()) + 1, temperature):
        suggested[tile] = votes.argmax(axis=1)
        for_label[tile] = votes[np.arange(len(votes)), own[tile]]
    suspicion = np.clip(1 - for_label, 0, 1)
    order = np.lexsort((checked, -similarities[:, 0], -suspicion))
    chosen = order[(suggested != own)[order]][:limit]
    return {"sample": checked[chosen], "suggested": suggested[chosen], "suspicion": suspicion[chosen]}
