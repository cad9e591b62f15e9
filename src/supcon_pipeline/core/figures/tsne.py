"""t-SNE maps: two coordinates for each embedding."""

import ctypes
import logging

import numpy as np
from jaxtyping import Float

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.vectors import are_same, require_finite, unit_rows

logger = logging.getLogger(__name__)
# Wider rows than the first are reduced to the second by PCA, which makes the neighbour search faster.
MAX_DIM, REDUCED_DIM = 64, 50


def tsne_map(
    embeddings: Float[np.ndarray, "n dim"],
    perplexity: float,
    num_iterations: int,
    seed: int,
    num_jobs: int,
) -> Float[np.ndarray, "n 2"]:
    """Two coordinates for each embedding, by t-SNE of the rows scaled to unit length.

    Rows of more than 64 dimensions are first reduced to 50 by PCA. The same seed gives the same map,
    whatever was run before and however many jobs there are. Rows that are all the same, as an encoder that
    has collapsed gives them, all lie in one place.

    Raises:
        InputError: where a row is not finite, or the perplexity is too large for the number of rows; see
            `largest_perplexity`.

    Source:
        van der Maaten 2014, "Accelerating t-SNE using tree-based algorithms" (Barnes-Hut, angle 0.5), with
        the learning rate of Belkina et al. 2019, doi 10.1038/s41467-019-13055-y: a twelfth of the rows.
    """
    from MulticoreTSNE import MulticoreTSNE

    # The library ends the whole process on NaN, on infinity and on rows that are all the same.
    require_finite("embeddings", embeddings)
    num_rows = len(embeddings)
    if are_same(embeddings):
        logger.warning("All %s embeddings are the same: their t-SNE map is one point", f"{num_rows:,}")
        return np.zeros((num_rows, 2))
    if 3 * perplexity >= num_rows - 1:
        raise InputError(
            f"perplexity must be below {(num_rows - 1) / 3:.4g} for {num_rows:,} images, got {perplexity:g}; "
            f"set perplexity={largest_perplexity(num_rows):.4g} or lower"
        )
    logger.info("t-SNE of %s points, perplexity %.3g, from seed %d", f"{num_rows:,}", perplexity, seed)
    # At least 1: the C library treats 0 and 1 as the same seed.
    state = seed % (2**31 - 1) + 1
    # The library seeds only the initial layout, after it has drawn numbers for its neighbour search.
    ctypes.CDLL(None).srand(state)
    tsne = MulticoreTSNE(
        n_components=2,
        perplexity=perplexity,
        # Below 200, the library's default, a map of few points does not unfold.
        learning_rate=max(200.0, num_rows / 12),
        n_iter=num_iterations,
        random_state=state,
        n_jobs=num_jobs,
    )
    coordinates: np.ndarray = tsne.fit_transform(_reduced(embeddings))
    return coordinates


def largest_perplexity(num_rows: int) -> float:
    """The highest perplexity for a number of rows: t-SNE uses three times as many neighbours."""
    return (num_rows - 2) / 3


def _reduced(embeddings: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n reduced"]:
    """Rows of unit length, reduced by PCA where they are wide."""
    from sklearn.decomposition import PCA

    rows = unit_rows(embeddings, np.float64)
    if rows.shape[1] <= MAX_DIM:
        return rows
    num_components = min(REDUCED_DIM, len(rows))
    reduced: np.ndarray = PCA(num_components, svd_solver="full").fit_transform(rows)
    return reduced
