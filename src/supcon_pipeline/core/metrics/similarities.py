"""Cosine similarities that do not depend on the order in which products are summed."""

import numpy as np
from jaxtyping import Float, Int

from supcon_pipeline.core.vectors import unit_rows

# Similarities held at once: 64 MB, and a few times that while they are counted or sorted.
TILE_SIZE = 2**23
# Dot products of numbers with this many binary places need at most 52, which float64 holds exactly.
NUM_PLACES = 26
# Similarities are distinguished down to 2e-7, about the rounding error of float32 embeddings.
SIMILARITY_STEP = 2.0**-22
# Steps of similarity from 0 to 1, and some more for rounding.
HALF_STEPS = int(1 / SIMILARITY_STEP) + 2**6
# Rows converted to float64 at once.
_CONVERTED_ROWS = 2**12


def short_rows(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
    """Rows of length 1, float64, with so few binary places that their dot products are exact.

    In float32, the product of the same two rows depends on their place in a matrix.
    """
    short = np.empty(np.shape(rows))
    for start in range(0, len(short), _CONVERTED_ROWS):
        some = slice(start, start + _CONVERTED_ROWS)
        short[some] = unit_rows(np.ascontiguousarray(rows[some]), np.float64)
    short *= 2**NUM_PLACES
    np.rint(short, out=short)
    short /= 2**NUM_PLACES
    return short


class CosineSimilarities:
    """The exact cosine similarities of given queries to all references.

    Attributes:
        queries: float, the rows that queries are taken from.
        references: short rows.
    """

    def __init__(self, queries: Float[np.ndarray, "n dim"], references: Float[np.ndarray, "m dim"]) -> None:
        self.queries, self.references = np.asarray(queries), short_rows(references)
        # Taking a large block of new memory costs more than filling it.
        self._products = np.empty((0, len(references)))

    def __call__(self, rows: Int[np.ndarray, " q"]) -> Float[np.ndarray, "q m"]:
        """Those of the queries in these rows, in memory that the next call uses again."""
        if len(self._products) < len(rows):
            self._products = np.empty((len(rows), len(self.references)))
        short = short_rows(self.queries[rows])
        return np.matmul(short, self.references.T, out=self._products[: len(rows)])
