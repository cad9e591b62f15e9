"""t-SNE maps: two coordinates for each embedding."""

import ctypes
import logging

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.vectors import unit_rows

logger = logging.getLogger(__name__)
# Above the one, rows are first reduced to the other: distances are kept, the search of neighbours is faster.
MAX_DIM, REDUCED_DIM = 64, 50


def tsne_map(
    embeddings: Float[np.ndarray, "n dim"],
    perplexity: float,
    num_iterations: int,
    seed: int,
    num_jobs: int,
) -> Float[np.ndarray, "n 2"]:
    """Two coordinates for each embedding, by t-SNE over the unit-length rows.

    Above 64 dimensions the rows are first reduced to 50 by PCA. The same seed gives the same map, whatever
    was drawn before and whatever the number of jobs.

    Raises:
        InputError: where the perplexity is too large for the number of rows.

    Source:
        van der Maaten 2014, "Accelerating t-SNE using tree-based algorithms" (Barnes-Hut, angle 0.5), with
        the learning rate of Belkina et al. 2019, doi 10.1038/s41467-019-13055-y: a twelfth of the rows.
    """
    from MulticoreTSNE import MulticoreTSNE

    num_rows = len(embeddings)
    if 3 * perplexity >= num_rows - 1:
        raise InputError(
            f"visualization.tsne.perplexity must be below a third of the number of images, "
            f"got {perplexity} for {num_rows}; lower it"
        )
    logger.info("t-SNE of %s points, perplexity %.3g, from seed %d", f"{num_rows:,}", perplexity, seed)
    # From 1 on: the C library takes 0 and 1 for the same seed.
    state = seed % (2**31 - 1) + 1
    # The library sets the state for the first layout alone, after it has drawn for its search of neighbours.
    ctypes.CDLL(None).srand(state)
    tsne = MulticoreTSNE(
        n_components=2,
        perplexity=perplexity,
        # Below 200, the library's own, a map of few points does not unfold.
        learning_rate=max(200.0, num_rows / 12),
        n_iter=num_iterations,
        random_state=state,
        n_jobs=num_jobs,
    )
    coordinates: np.ndarray = tsne.fit_transform(_reduced(embeddings))
    return coordinates


def largest_perplexity(num_rows: int) -> float:
    """The highest perplexity of so many rows: t-SNE looks at three times as many neighbours."""
    return (num_rows - 2) / 3


def _reduced(embeddings: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n reduced"]:
    """Unit-length rows, by PCA where they are wide."""
    from sklearn.decomposition import PCA

    rows = unit_rows(embeddings, np.float64)
    if rows.shape[1] <= MAX_DIM:
        return rows
    num_components = min(REDUCED_DIM, len(rows))
    reduced: np.ndarray = PCA(num_components, svd_solver="full").fit_transform(rows)
    return reduced


def choose_points(strata: pd.Series, max_points: int, seed: int) -> Int[np.ndarray, " m"]:
    """Positions of at most `max_points` rows, ascending, in which every stratum has its share.

    Each stratum is shuffled and its rows are spread evenly over [0, 1]; the lowest are taken. So a stratum
    has its share to within one row, and a smaller choice from the same seed is part of a larger one.

    Args:
        strata: what each row belongs to.
        max_points: at least 1.
        seed: of the shuffling.
    """
    if len(strata) <= max_points:
        return np.arange(len(strata))
    order = np.random.default_rng(seed).permutation(len(strata))
    groups = strata.iloc[order].groupby(strata.iloc[order], sort=False)
    position = (groups.cumcount() + 0.5) / groups.transform("size")
    chosen: np.ndarray = np.sort(order[np.argsort(position.to_numpy(), kind="stable")[:max_points]])
    return chosen
