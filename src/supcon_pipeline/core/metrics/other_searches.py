"""Retrieval metrics of searches other than the plain one: re-ranked, or by expanded queries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.data.class_splits import Search
from supcon_pipeline.core.metrics.retrieval import SearchValues, search_values
from supcon_pipeline.core.search.expansion import expand_queries
from supcon_pipeline.core.search.reranking import Reranker


def reranked_values(
    rows: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    search: Search,
    ks: Sequence[int],
    reranking: Mapping[str, Any],
) -> SearchValues:
    """What a search gives for each query when neighbours in common count as well.

    Args:
        rows: float, one per image.
        labels: the class of each.
        search: which rows are searched for, and among which.
        ks: values of k; those above the number of rows to find are left out.
        reranking: `k1`, `k2` and `weight` of a `Reranker`; neighbours are at most as many as there are.

    Raises:
        ValueError: as for `search_values`.
        InputError: if a row is not finite.
    """
    reranker = Reranker.within(rows, search.queries, search.gallery, **reranking)
    parts = (search.queries, search.gallery, ks, search.groups, search.copies)
    return search_values(rows, labels, *parts, similarities=reranker.similarities)


def expanded_values(
    rows: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    search: Search,
    ks: Sequence[int],
    expansion: Mapping[str, Any],
) -> SearchValues:
    """What a search gives for each query when queries are expanded by what they find.

    Args:
        rows: float, one per image.
        labels: the class of each.
        search: which rows are searched for, and among which.
        ks: values of k; those above the number of rows to find are left out.
        expansion: `k` and `alpha` of `expand_queries`.

    Raises:
        ValueError: as for `search_values`.
        InputError: if a row is not finite.
    """
    queries, gallery = search.queries, search.gallery
    expanded = expand_queries(rows, queries, gallery, **expansion, copies=search.copies)
    # Behind the rows, each with all that is known of its query.
    behind = len(rows) + np.arange(len(queries))
    everything = np.concatenate([labels, labels[queries]])
    groups, copies = (
        None if numbers is None else np.concatenate([numbers, numbers[queries]])
        for numbers in (search.groups, search.copies)
    )
    vectors = np.concatenate([rows, expanded])
    found = search_values(vectors, everything, behind, gallery, ks, groups, copies)
    return SearchValues(queries[found.rows - len(rows)], found.values)
