"""The metrics that are said first."""

from typing import NamedTuple


class Headline(NamedTuple):
    """A metric with words for it.

    Args:
        group: of the metrics.
        metric: its name there.
        short: a name that leaves a terminal of 80 columns room for the numbers.
        meaning: for those who do not know the name.
    """

    group: str
    metric: str
    short: str
    meaning: str


_NEAREST = "nearest neighbour among the training images has the same class"
HEADLINES = (
    Headline("embedding", "precision_at_1", "precision@1", _NEAREST),
    Headline(
        "embedding",
        "mean_average_precision_at_r",
        "mAP@R",
        "average precision within the first R neighbours, for R training images of the class",
    ),
    Headline("embedding", "knn_accuracy", "k-NN accuracy", "weighted vote of the nearest training images"),
    Headline("projection", "precision_at_1", "precision@1", _NEAREST),
    Headline("classifier", "accuracy", "accuracy", "linear classifier"),
    Headline("classifier", "macro_f1", "macro F1", "linear classifier, every class alike"),
    Headline(
        "classifier",
        "expected_calibration_error",
        "ECE",
        "how far confidence and accuracy are apart before scaling, lower is better",
    ),
)
