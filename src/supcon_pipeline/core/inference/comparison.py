"""The outputs of exported models beside those of the original."""

import numpy as np
from jaxtyping import Float

from supcon_pipeline.core.messages import InputError

Arrays = dict[str, np.ndarray]
# How many times the tolerance holds for a model of a precision; of int8, k-NN alone decides.
LEEWAYS = {"float32": 1.0, "float16": 10.0, "int8": np.inf}


def compare_outputs(
    name: str, expected: Arrays, given: Arrays, tolerance: float, leeway: float = 1
) -> dict[str, float]:
    """The largest absolute difference of each output.

    Args:
        name: name of the exported model, for messages.
        expected: outputs of the original.
        given: outputs of the exported model.
        tolerance: largest difference allowed, relative to the largest absolute value of the output.
        leeway: times so much is allowed for this model.

    Raises:
        ValueError: where the exported model has other outputs than the original.
        InputError: where an output differs by more than the tolerance.
    """
    if expected.keys() != given.keys():
        raise ValueError(f"outputs of {name} must be {', '.join(expected)}, got {', '.join(given)}")
    allowed = leeway * tolerance
    differences = {output: _difference(expected[output], given[output]) for output in expected}
    scales = {output: float(np.abs(expected[output]).max()) for output in expected}
    # A tolerance for all outputs: that of the first would be refused by the next.
    needed = [differences[output] / (leeway * scale) for output, scale in scales.items() if scale]
    for output, difference in differences.items():
        scale = scales[output]
        # Written so that NaN is refused.
        if not difference <= allowed * scale:
            least = 1.1 * max(needed) if scale else np.nan
            enough = f"; if that is good enough, add --params export.tolerance={least:.1e}"
            raise InputError(
                f"{output} of {name} must differ from the original by at most {allowed * scale:.3g}, "
                f"got {difference:.3g}{enough if np.isfinite(least) else ''}"
            )
    return differences


def _difference(expected: Float[np.ndarray, "n dim"], given: Float[np.ndarray, "n dim"]) -> float:
    if expected.shape != given.shape:
        return float("inf")
    return float(np.abs(expected - given).max())
